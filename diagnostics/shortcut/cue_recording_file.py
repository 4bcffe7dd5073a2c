"""A recording under planted cues as files, read as from a stranger.

cues.npz    labels, classes_cue, cues and for each model its predictions, with cues and without
cues.json   facts of the run and of each model; written last, so that both are there if it is
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from diagnostics.evaluation.archive import open_arrays, pack_arrays
from diagnostics.plain import parse_json, to_plain
from diagnostics.shortcut.cued import CueContext, CuedModel, CueRecording, Decoding, HeldOut
from errors import UserError, warn
from files import write_atomically
from models.whole import hash_file
from training.run.record_file import read_record, write_record

ANSWERS = "cues_npz_sha256"  # in cues.json
CUED_MODEL, ABOUT = TypeAdapter(CuedModel), TypeAdapter(CueContext)
NAMES = ("labels", "classes_cue", "cues", "predictions", "clean")


def write_cue_recording(recording: CueRecording, folder: Path) -> None:
    """Write cues.npz and then cues.json into `folder`."""
    content = pack_arrays({name: getattr(recording, name) for name in NAMES})
    write_atomically(folder / "cues.npz", lambda file: file.write(content))
    about = {**to_plain(recording.about), ANSWERS: hash_file(folder / "cues.npz")}
    write_record(folder / "cues.json", {**about, "models": to_plain(recording.models)})


def is_up_to_date(folder: Path, weights_hashes: Mapping[str, str]) -> bool:
    """Return whether `folder` has a recording of these models, by weights hash."""
    if not (folder / "cues.json").exists():
        return False
    try:
        models = read_cue_recording(folder).models
    except UserError as error:
        warn(str(error))
        return False
    return {model.method: model.weights_hash for model in models} == dict(weights_hashes)


def read_cue_recording(folder: Path) -> CueRecording:
    """Read a recording.

    Raises:
        UserError: files that are not as they were written.
    """
    hint = "--phase study makes it again"
    about, answers = read_record(folder / "cues.json", hint), folder / "cues.npz"
    try:
        with open_arrays(answers) as arrays:
            if about.pop(ANSWERS, None) != hash_file(answers):
                raise ValueError("answers of another recording")
            models = [_build_model(dict(model)) for model in about.pop("models")]
            found = CueRecording(parse_json(ABOUT, CueContext, json.dumps(about)), models, **dict(arrays))
            _check(found)
    except ValueError:
        raise UserError(f"{folder}: cues.json or cues.npz is damaged: {hint}") from None
    return found


def _check(found: CueRecording) -> None:
    """Raise ValueError where models and answers do not fit together."""
    images, models = len(found.labels), len(found.models)
    shows = found.cues.shape[1] if found.cues.ndim == 2 else -1
    arrays = (getattr(found, name) for name in NAMES)
    if any(array.dtype.kind not in "iu" or (array.size and array.min() < 0) for array in arrays):
        raise ValueError("answers that are no classes")
    if found.predictions.shape != (models, images, shows) or found.clean.shape not in ((models, images), (0,)):
        raise ValueError("answers of other models or images")
    if not models or len({model.method for model in found.models}) < models:
        raise ValueError("no models, or two of one name")
    for number in range(models):
        found.get_shown(number)  # raises for labels, cues and answers that do not agree


def _build_model(values: dict[str, Any]) -> CuedModel:
    """Build a model from `to_plain` of one; ValueError for fields of another type."""
    probes, choices = ({f.name: values.pop(f.name, ...) for f in fields(kind)} for kind in (Decoding, HeldOut))
    values["decoding"] = None if ... in probes.values() else probes
    values["held_out"] = None if ... in choices.values() else choices
    return parse_json(CUED_MODEL, CuedModel, json.dumps(values))
