"""A recording as a file, predictions.npz, read as from a stranger.

Letters: N test images, C classes, M images of the layer sample, P training images of the probe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from dataset.corruptions import DEGRADATIONS, SEVERITIES
from diagnostics.differing import SHOWN_SIDE, ShownImages
from diagnostics.evaluation.archive import check_integers, check_reals, open_arrays, pack_arrays
from diagnostics.evaluation.recording import ARRAYS, SHARED, Context, Meta, RecordedModel, Recording
from diagnostics.plain import parse_json, to_plain

META, CONTEXT = TypeAdapter(Meta), TypeAdapter(Context)
REPORTED = {  # of a config, by key, what every report shows
    "name": str,
    "seeds": list,
    "data.source": str,
    "data.val_fraction": int | float,
    "teacher.arch": str,
    "student.arch": str,
}


def write_recording(recording: Recording, file: BinaryIO) -> None:
    """Store a recording as a compressed .npz without pickled objects."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(recording, name) for name in SHARED}
    arrays |= {"shown.indices": recording.shown.indices, "shown.pixels": recording.shown.pixels}
    if recording.names is not None:
        arrays["names"] = recording.names
    arrays["context"] = np.array(json.dumps(to_plain(recording.context)))
    arrays["meta"] = np.array([json.dumps(to_plain(model.meta)) for model in recording.models])
    for number, model in enumerate(recording.models):
        arrays |= {f"{number}.{name}": getattr(model, name) for name in ARRAYS}
        arrays |= {f"{number}.projections.{name}": value for name, value in model.projections.items()}
    file.write(pack_arrays(arrays))


def read_recording(path: Path) -> Recording:
    """Read a recording.

    Raises:
        ValueError: a file that holds something else.
    """
    with open_arrays(path) as arrays:
        found = _build_recording(dict(arrays))
        _check(found)
    return found


def _build_recording(arrays: Mapping[str, NDArray[Any]]) -> Recording:
    models = []
    for number, meta in enumerate(_read_metas(arrays)):
        start = f"{number}.projections."
        projections = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
        own = {name: arrays[f"{number}.{name}"] for name in ARRAYS}
        models.append(RecordedModel(meta, **own, projections=projections))
    context = parse_json(CONTEXT, Context, str(arrays["context"]))
    shown = ShownImages(arrays["shown.indices"], arrays["shown.pixels"])
    shared = {name: arrays[name] for name in SHARED}
    return Recording(context, models=models, names=arrays.get("names"), shown=shown, **shared)


def _read_metas(arrays: Mapping[str, NDArray[Any]]) -> list[Meta]:
    return [parse_json(META, Meta, str(text)) for text in np.atleast_1d(arrays["meta"])]


@dataclass(frozen=True)
class Answers:
    """The part of a recording that a comparison across runs needs: features stay in the file."""

    labels: NDArray[np.int64]  # (N,)
    right: dict[str, NDArray[np.bool_]]  # of each model that classifies, (N,)
    hashes: dict[str, str]  # digests of the weights


def read_answers(path: Path) -> Answers:
    """Read where each model of a recording is right.

    Raises:
        ValueError: a file that holds something else.
    """
    right = {}
    with open_arrays(path) as arrays:
        labels, metas = arrays["labels"], _read_metas(arrays)
        check_integers("labels", labels, (labels.size or 1,))
        for number, meta in enumerate(metas):
            if meta.classifies:
                logits = arrays[f"{number}.logits"]
                check_reals("logits", logits, (len(labels), None))
                right[meta.name] = np.asarray(logits.argmax(axis=1) == labels)
    return Answers(labels, right, {meta.name: meta.weights_hash for meta in metas})


def _check(found: Recording) -> None:
    """Raise ValueError where arrays do not fit together."""
    images, classes = len(np.atleast_1d(found.labels)), len(found.context.classes)
    if not images or not found.models:
        raise ValueError("it holds no images or no models")
    _check_config(found.context.config)
    check_integers("labels", found.labels, (images,), classes)
    check_integers("indices", found.indices, (images,))
    check_integers("layer_indices", found.layer_indices, (found.layer_indices.size,), images)
    check_integers("corrupted_indices", found.corrupted_indices, (found.corrupted_indices.size,), images)
    check_integers("probe_labels", found.probe_labels, (found.probe_labels.size,), classes)
    _check_shown(found, images)
    if len({model.name for model in found.models}) < len(found.models):
        raise ValueError("two models have the same name")
    teacher = next((model for model in found.models if model.meta.method == "teacher"), None)
    for model in found.models:
        _check_model(model, found, classes)
    for model in found.models:
        _check_projections(model, teacher)


def _check_config(config: Mapping[str, Any]) -> None:
    """Raise ValueError where a config lacks what every report shows of it."""
    for key, kind in REPORTED.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise ValueError(f"its config has no {key}")
    if not isinstance(config.get("shortcut", {}), dict):
        raise ValueError("its config has no section shortcut")


def _check_shown(found: Recording, images: int) -> None:
    indices, pixels = found.shown.indices, found.shown.pixels
    check_integers("shown.indices", indices, (indices.size,), images)
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[:2] != (indices.size, 3):
        raise ValueError(f"shown.pixels is {pixels.shape} {pixels.dtype}, not {indices.size} images of bytes")
    if indices.size and not 0 < min(pixels.shape[2:]) <= max(pixels.shape[2:]) <= SHOWN_SIDE:
        raise ValueError(f"shown.pixels has images of {pixels.shape[2:]} pixels")
    if found.names is not None and (found.names.shape != (images,) or found.names.dtype.kind != "U"):
        raise ValueError(f"names is {found.names.shape} {found.names.dtype}, not ({images},) of text")


def _check_model(model: RecordedModel, found: Recording, classes: int) -> None:
    name, images, probes, widths = model.name, len(found.labels), len(found.probe_labels), model.meta.widths
    if len(widths) != len(model.meta.layers) or min(widths, default=0) < 1:
        raise ValueError(f"{name}: layers and their widths do not agree")
    check_reals(f"logits of {name}", model.logits, (images, classes), finite=True)
    check_reals(f"penultimate of {name}", model.penultimate, (images, None), finite=model.meta.detailed)
    check_reals(f"last of {name}", model.last, (images, None), finite=model.meta.detailed)
    check_reals(
        f"layers of {name}", model.layers, (len(found.layer_indices), sum(widths)), finite=model.meta.detailed
    )
    check_reals(f"probe of {name}", model.probe, (probes, model.last.shape[1]), finite=model.meta.detailed)
    if model.train_logits.size or model.train_logits.dtype.kind != "f":
        check_reals(f"train_logits of {name}", model.train_logits, (probes, classes), finite=True)
    if model.corrupted.size:
        shape = (len(DEGRADATIONS), len(SEVERITIES), len(found.corrupted_indices))
        check_integers(f"corrupted of {name}", model.corrupted, shape, classes)
    for part, array in model.projections.items():
        if array.dtype != np.float32:
            raise ValueError(f"{part} of {name} is {array.dtype}, not float32")


def _check_projections(model: RecordedModel, teacher: RecordedModel | None) -> None:
    """Raise ValueError for linear maps of other shapes than the features that they map."""
    for tap in ("penultimate", "last"):
        rows = set()
        for side, source in (("student", model), ("teacher", teacher)):
            weight, bias = (model.projections.get(f"{tap}.{side}.{part}") for part in ("weight", "bias"))
            if weight is None or bias is None or source is None:
                continue
            width = getattr(source, tap).shape[1]
            if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
                raise ValueError(f"projections of {model.name} at {tap}: {side} has no {width} channels")
            rows.add(len(weight))
        if len(rows) > 1:
            raise ValueError(f"{tap} of {model.name}: student and teacher are projected to different sizes")
