"""A recording as a file, predictions.npz: written without pickled objects, and read as from a stranger.

Letters: N test images, C classes, M images of the layer sample, P training images of the probe.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from dataset.corruptions import DEGRADATIONS, SEVERITIES
from diagnostics.differing import SHOWN_SIDE, Shown
from diagnostics.evaluation.recording import ARRAYS, LATER, SHARED, Context, Meta, RecordedModel, Recording
from diagnostics.plain import to_plain, typed_json
from files import ARCHIVE_ERRORS
from models.whole import damaged_entry

META, CONTEXT = TypeAdapter(Meta), TypeAdapter(Context)
REPORTED = {  # of a config, by key, what the report says of it
    "name": str,
    "seeds": list,
    "data.source": str,
    "data.val_fraction": int | float,
    "teacher.arch": str,
    "student.arch": str,
}


def write(recording: Recording, file: BinaryIO) -> None:
    """Store a recording as a compressed .npz without pickled objects."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(recording, name) for name in SHARED}
    arrays |= {"shown.indices": recording.shown.indices, "shown.pixels": recording.shown.pixels}
    if recording.names is not None:
        arrays["names"] = recording.names
    arrays["context"] = np.array(json.dumps(to_plain(recording.context)))
    arrays["meta"] = np.array([json.dumps(to_plain(model.meta)) for model in recording.models])
    for number, model in enumerate(recording.models):
        arrays |= {f"{number}.{name}": getattr(model, name) for name in (*ARRAYS, *LATER)}
        arrays |= {f"{number}.projections.{name}": value for name, value in model.projections.items()}
    buffer = io.BytesIO()  # zip files seek, which a plain stream need not allow
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    file.write(buffer.getbuffer())


def read(path: Path) -> Recording:
    """Read what `write` stored.

    Raises:
        ValueError: a file that holds something else.
    """
    with _arrays_of(path) as arrays:
        found = _from_arrays(dict(arrays))
        _check(found)
    return found


@contextmanager
def _arrays_of(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """A recording's arrays, each read as it is asked for; what does not fit inside is a ValueError of one line."""
    damaged = damaged_entry(path)
    if damaged is not None:
        raise ValueError(f"{path} is damaged ({damaged} is not as it was written)")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except (KeyError, TypeError, AttributeError, MemoryError, RecursionError, *ARCHIVE_ERRORS) as error:
        raise ValueError(f"{path} is no file of predictions: {_in_a_line(error)}") from None


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Recording:
    models = []
    for number, meta in enumerate(_metas(arrays)):
        start = f"{number}.projections."
        projections = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
        own = {name: arrays[f"{number}.{name}"] for name in ARRAYS}
        own |= {name: arrays[f"{number}.{name}"] for name in LATER if f"{number}.{name}" in arrays}
        models.append(RecordedModel(meta, **own, projections=projections))
    context = typed_json(CONTEXT, Context, str(arrays["context"]))
    shown = Shown(arrays["shown.indices"], arrays["shown.pixels"]) if "shown.indices" in arrays else Shown()
    shared = {name: arrays[name] for name in SHARED}
    return Recording(context, models=models, names=arrays.get("names"), shown=shown, **shared)


def _metas(arrays: Mapping[str, NDArray[Any]]) -> list[Meta]:
    return [typed_json(META, Meta, str(text)) for text in np.atleast_1d(arrays["meta"])]


@dataclass(frozen=True)
class Answers:
    """Of a recording, what a comparison across runs needs: features stay in the file."""

    labels: NDArray[np.int64]  # (N,)
    right: dict[str, NDArray[np.bool_]]  # of each model that classifies, (N,)
    hashes: dict[str, str]  # digests of the weights


def read_answers(path: Path) -> Answers:
    """Where each model of a recording is right.

    Raises:
        ValueError: a file that holds something else.
    """
    with _arrays_of(path) as arrays:
        labels, metas = arrays["labels"], _metas(arrays)
        _see_integers("labels", labels, (labels.size,), None)
        right = {
            meta.name: _right(arrays[f"{number}.logits"], labels)
            for number, meta in enumerate(metas)
            if meta.classifies
        }
    return Answers(labels, right, {meta.name: meta.weights_hash for meta in metas})


def _right(logits: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    if logits.ndim != 2 or len(logits) != len(labels) or not logits.size or logits.dtype.kind != "f":
        raise ValueError(f"logits are {logits.shape} {logits.dtype}, not one row an image")
    return np.asarray(logits.argmax(axis=1) == labels)


def _in_a_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return str(error)


def _check(found: Recording) -> None:
    """Raise ValueError where arrays do not fit together, or hold what is no class or no image."""
    images, classes = len(np.atleast_1d(found.labels)), len(found.context.classes)
    if not images or not found.models:
        raise ValueError("it holds no images or no models")
    _check_config(found.context.config)
    _see_integers("labels", found.labels, (images,), classes)
    _see_integers("indices", found.indices, (images,), None)
    for name in ("layer_indices", "corrupted_indices"):
        array = getattr(found, name)
        _see_integers(name, array, (array.size,), images)
    _check_shown(found, images)
    _see_integers("probe_labels", found.probe_labels, (found.probe_labels.size,), classes)
    if len({model.name for model in found.models}) < len(found.models):
        raise ValueError("two models have the same name")
    for model in found.models:
        _check_model(model, found, classes)


def _check_config(config: Mapping[str, Any]) -> None:
    """Raise ValueError where a config lacks what every report says of it."""
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
    _see_integers("shown.indices", indices, (indices.size,), images)
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[:2] != (indices.size, 3):
        raise ValueError(f"shown.pixels is {pixels.shape} {pixels.dtype}, not {indices.size} images of bytes")
    if indices.size and not 0 < min(pixels.shape[2:]) <= max(pixels.shape[2:]) <= SHOWN_SIDE:
        raise ValueError(f"shown.pixels has images of {pixels.shape[2:]} pixels")
    if found.names is not None and (found.names.shape != (images,) or found.names.dtype.kind != "U"):
        raise ValueError(f"names is {found.names.shape} {found.names.dtype}, not ({images},) of text")


def _check_model(model: RecordedModel, found: Recording, classes: int) -> None:
    images, widths = len(found.labels), model.meta.widths
    if len(widths) != len(model.meta.layers) or min(widths, default=1) < 1:
        raise ValueError(f"{model.name}: layers and their widths do not agree")
    wide = model.last.shape[-1] if model.last.ndim else 0
    shapes: dict[str, tuple[int, ...]] = {
        "logits": (images, classes),
        "penultimate": (images, model.penultimate.shape[-1] if model.penultimate.ndim else 0),
        "last": (images, wide),
        "layers": (len(found.layer_indices), sum(widths)),
        "probe": (len(found.probe_labels), wide),
    }
    if model.train_logits.size:
        shapes["train_logits"] = (len(found.probe_labels), classes)
    for name, shape in shapes.items():
        array = getattr(model, name)
        if array.shape != shape or 0 in shape[1:] or array.dtype.kind != "f":
            raise ValueError(f"{name} of {model.name} is {array.shape} {array.dtype}, not {shape} of reals")
    for name in ("logits", "train_logits"):
        array = getattr(model, name)
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name} of {model.name} hold NaN or infinity, or no reals")
    if model.corrupted.size:
        shape = (len(DEGRADATIONS), len(SEVERITIES), len(found.corrupted_indices))
        _see_integers(f"corrupted of {model.name}", model.corrupted, shape, classes)
    for name, array in model.projections.items():
        if array.dtype.kind != "f":
            raise ValueError(f"{name} of {model.name} holds no reals")


def _see_integers(name: str, array: NDArray[Any], shape: tuple[int, ...], below: int | None) -> None:
    """Raise ValueError for another shape, another type, or values outside 0 .. below - 1."""
    if array.shape != shape or array.dtype.kind not in "iu":
        raise ValueError(f"{name} is {array.shape} {array.dtype}, not {shape} of integers")
    if array.size and (array.min() < 0 or (below is not None and array.max() >= below)):
        raise ValueError(f"{name} holds what is outside 0 .. {(below or 2**63) - 1}")
