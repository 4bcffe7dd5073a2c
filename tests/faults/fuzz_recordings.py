"""Fuzzing recordings: predictions.npz and cues.npz with cues.json, their bytes, their arrays and their words."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from diagnostics.evaluation import recording_file
from diagnostics.evaluation.recording import Recording
from diagnostics.plain import to_plain
from diagnostics.report.folder import write_report
from diagnostics.shortcut import recording_file as cue_file
from diagnostics.shortcut.cued import About, CuedModel, CueRecording, Decoding
from study.grid import StudyRun
from study.measurements import _measure
from tests.diagnostics.report.test_folder import network, recordings
from tests.faults.fuzz import Result, Target
from tests.faults.mutations import CHANGES, VALUES, Change, altered, changed
from tests.faults.small_place import Place
from training.run.record_file import read_record, write_record

Arrays = dict[str, NDArray[Any]]
CUES = ("cues.npz", "cues.json")
ABOUT = About({"losses.crd.temperature": 0.5}, 0, {"cue": "patch"}, 4.0, 0.9)


def targets(place: Place) -> list[Target]:
    folder = place.folder / "recordings"
    folder.mkdir()
    models = [network(name, right=right) for name, right in (("teacher", 0.9), ("stage1", 0.5), ("kd", 0.6))]
    models = [replace(model, corrupted=model.corrupted[:0, :0, :0]) for model in models]
    file = io.BytesIO()
    recording_file.write(recordings(models), file)
    whole = recording_file.read(_put(folder / "whole.npz", file.getvalue()))
    arrays = dict(np.load(folder / "whole.npz"))
    odd = st.tuples(st.sampled_from(sorted(arrays)), st.integers(0, 30))
    words = altered([json.loads(str(arrays["context"])), *(json.loads(str(text)) for text in arrays["meta"])])
    about = {**to_plain(ABOUT), "models": [to_plain(model) for model in _cued().models]}
    names = ("labels", "classes_cue", "cues", "predictions", "clean")
    return [
        Target("predictions.npz, bytes", CHANGES, partial(_bytes, folder, file.getvalue(), whole)),
        Target("predictions.npz, arrays", odd, partial(_arrays, folder, arrays), 0.1),
        Target("predictions.npz, words", words, partial(_words, folder, arrays), 0.1),
        Target("cues, bytes", st.tuples(st.sampled_from(CUES), CHANGES), partial(_cue_bytes, folder), 0.5),
        Target(
            "cues.npz, arrays",
            st.tuples(st.sampled_from(names), st.integers(0, 30)),
            partial(_cue_arrays, folder),
            0.5,
        ),
        Target("cues.json, words", altered(about, VALUES), partial(_cue_words, folder), 0.5),
    ]


def odd_arrays(array: NDArray[Any]) -> list[NDArray[Any]]:
    """What may stand in an array's place."""
    kinds = ("f8", "f2", "i8", "u1", "?", "U3", "S3", "c8") if array.dtype.kind != "U" else ("U9",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of values that do not fit
        cast = [array.astype(kind) for kind in kinds]
    row = np.atleast_1d(array)
    found: list[Any] = [
        *cast,
        *(row[:0], row[:1], row[..., :0], array[..., None], array.reshape(-1), array.T, row[::-1]),
        *(np.zeros(()), np.zeros(0), np.zeros((0, 3)), np.array("text"), np.array([{}], dtype=object)),
        *(np.full(array.shape, value) for value in (np.nan, np.inf, -1, 10**6, -(2**63), 1e300)),
        np.zeros(array.shape, "M8[s]"),
        np.zeros(array.shape, [("a", "i4")]),
    ]
    return found


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _read(path: Path) -> Recording | None:
    try:
        return recording_file.read(path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error), error
        return None


def _bytes(folder: Path, content: bytes, whole: Recording, changes: list[Change]) -> Result:
    found = _read(_put(folder / "a.npz", changed(content, changes)))
    if found is None:
        return "refused"
    assert to_plain(found.context) == to_plain(whole.context)
    for one, other in zip(found.models, whole.models, strict=True):
        assert to_plain(one.meta) == to_plain(other.meta)
        assert np.array_equal(one.logits, other.logits) and np.array_equal(one.last, other.last)
    return "right"


def _report(folder: Path, arrays: Arrays) -> Result:
    """What is read can be reported."""
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(array) for name, array in arrays.items()})
    found = _read(_put(folder / "a.npz", file.getvalue()))
    if found is None:
        return "refused"
    with mock.patch("diagnostics.report.files.to_bytes", lambda figure, kind: bytes(24)):
        write_report(found, folder / "report")
    return "right"


def _arrays(folder: Path, arrays: Arrays, given: tuple[str, int]) -> Result:
    name, number = given
    parts = [None, *odd_arrays(arrays[name])]
    part = parts[number % len(parts)]
    rest = {other: array for other, array in arrays.items() if other != name}
    return _report(folder, rest if part is None else {**rest, name: part})


def _words(folder: Path, arrays: Arrays, words: list[Any]) -> Result:
    texts = [json.dumps(word) for word in words] or [""]
    return _report(folder, {**arrays, "context": np.array(texts[0]), "meta": np.array(texts[1:])})


def _cued() -> CueRecording:
    labels, rng = np.arange(12) % 3, np.random.default_rng(0)
    cues = np.stack([labels, (labels + 1) % 3], axis=1)
    models = [
        CuedModel(
            name, "resnet8", "0123", {"kl": [0.5, 0.25]}, 0.5, Decoding(0.9, None), stage1={"cosine_last": [0.1]}
        )
        for name in ("teacher", "two_stage")
    ]
    predictions = rng.integers(0, 3, (2, 12, 2)).astype(np.int16)
    return CueRecording(ABOUT, models, labels, np.arange(3), cues, predictions, predictions[:, :, 0])


def _measured(folder: Path) -> CueRecording:
    """What is read can be measured."""
    from settings.schema import Config

    found = cue_file.read(folder)
    list(_measure(StudyRun({}, 0, Config()), found))
    return found


def _cue_bytes(folder: Path, given: tuple[str, list[Change]]) -> Result:
    name, changes = given
    whole = _cued()
    cue_file.write(whole, folder)
    _put(folder / name, changed((folder / name).read_bytes(), changes))
    found = _measured(folder)
    assert to_plain(found.about) == to_plain(whole.about) and to_plain(found.models) == to_plain(whole.models)
    assert all(
        np.array_equal(getattr(found, part), getattr(whole, part)) for part in ("labels", "cues", "predictions")
    )
    return "right"


def _cue_arrays(folder: Path, given: tuple[str, int]) -> Result:
    """By a stranger: the digest fits."""
    name, number = given
    whole = _cued()
    parts = odd_arrays(getattr(whole, name))
    cue_file.write(replace(whole, **{name: parts[number % len(parts)]}), folder)
    _measured(folder)
    return "right"


def _cue_words(folder: Path, words: Any) -> Result:
    cue_file.write(_cued(), folder)
    digest = read_record(folder / "cues.json", "")[cue_file.ANSWERS]
    plain = json.loads(json.dumps(words), parse_constant=lambda name: 0)
    plain = plain if isinstance(plain, dict) else {"models": plain}
    write_record(folder / "cues.json", {**plain, cue_file.ANSWERS: digest})
    _measured(folder)
    return "right"
