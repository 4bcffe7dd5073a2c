"""Export one model of a run: weights, graphs, card and script, all checked.

Letters: B images, S side of the network's input in pixels.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset.files.class_folders import FORMATS
from diagnostics.evaluation.evaluated_models import find_network, list_taps
from diagnostics.evaluation.recording import EvaluatedModel
from diagnostics.export.card import Export, format_card
from diagnostics.export.checks import (
    CheckedFile,
    CheckedScript,
    Reference,
    check_file,
    check_script,
    find_bit_depth,
    find_files,
)
from diagnostics.export.folder import (
    CARD,
    MADE_BY,
    METADATA,
    PREPROCESSING,
    SCRIPT,
    refuse_foreign,
    replace_folder,
)
from diagnostics.export.quantize import (
    CALIBRATION_IMAGES,
    QUANTIZED,
    Quantized,
    compare_deployments,
    write_quantized,
)
from diagnostics.plain import to_plain
from diagnostics.writable import check_export_folder
from errors import UserError
from files import write_text
from models import export
from models.checkpoint import copy_weights, hash_weights, save
from models.export import INPUT, NEEDED_FOR_ONNX, ONNX, OUTPUT, PROGRAM, REQUIREMENTS, WEIGHTS, FromPixels, Runner
from models.whole import hash_file
from models.zoo import count_parameters
from settings.networks import Network
from training.evaluation import compute_top1, predict
from training.experiment import Experiment
from training.run.environment import collect_environment

COMPARED_IMAGES = 256  # test images on which each file is compared with the model
COMPARED_FILES = 64  # of them that predict.py reads from their files
MEASURED_IMAGES = 5000  # most test images on which int8 is measured
FORMAT = 1  # of metadata.json: raise it when a key changes its meaning
RESIZED = {
    "squash": "bilinear with antialiasing to a square, the aspect ratio is not kept",
    "crop": "bilinear with antialiasing, short side to image_size, then the centre",
}


def refuse_export(folder: Path, quantize: bool) -> None:
    """Raise `UserError` for an export that cannot be done, before anything is loaded."""
    check_export_folder(folder)
    refuse_foreign(folder)
    missing = export.find_missing(*NEEDED_FOR_ONNX)
    if quantize and missing:
        raise UserError(f"--quantize needs {', '.join(missing)}: pip install -r {REQUIREMENTS}, or leave it out")


@dataclass(frozen=True)
class _Prepared:
    """A model to export, its metadata, and the test images on which its files are compared with it."""

    experiment: Experiment
    network: Network
    model: FromPixels
    metadata: dict[str, Any]
    positions: Tensor  # (B,) of the images of `reference` in the test set
    reference: Reference


def export_model(
    experiment: Experiment,
    subject: EvaluatedModel,
    teacher: EvaluatedModel | None,
    folder: Path,
    *,
    quantize: bool,
) -> Export:
    """Write a model to `folder`, each file loaded again and compared with it.

    Raises:
        UserError: the folder holds other files.
        MachineError: a file computes something else than the model; then nothing is written.
    """
    prepared = _prepare(experiment, subject, teacher)
    with replace_folder(folder) as unfinished:
        exported = _write_files(prepared, unfinished, quantize)
    return replace(exported, folder=folder)


def _prepare(experiment: Experiment, subject: EvaluatedModel, teacher: EvaluatedModel | None) -> _Prepared:
    network, data = find_network(experiment, subject), experiment.data
    built = subject.build().float()
    machine = replace(experiment.machine, bfloat16=False, float16=False)
    top1 = compute_top1(predict(built, data.test, machine), data.test.labels).item()
    mean, std = tuple(data.mean.tolist()), tuple(data.std.tolist())
    preprocessing = export.Preprocessing(data.test.side, mean, std, data.settings.resize)
    model = FromPixels(export.prepare_network(built), preprocessing).eval()
    positions = choose_evenly(len(data.test), COMPARED_IMAGES)
    images = data.test.load_normalised(positions.to(data.test.device)).cpu()
    with torch.no_grad():
        reference = Reference(
            _load_pixels(experiment, positions), model.network(images), model.network(images[:1])
        )
    metadata = _describe(experiment, subject, teacher, network, model) | {
        "accuracy": {"top1": top1, "images": len(data.test), "of": "test images, float32"}
    }
    return _Prepared(experiment, network, model, metadata, positions, reference)


def _describe(
    experiment: Experiment,
    subject: EvaluatedModel,
    teacher: EvaluatedModel | None,
    network: Network,
    model: FromPixels,
) -> dict[str, Any]:
    """Return the metadata of a model as JSON holds it."""
    here, preprocessing = collect_environment(), model.preprocessing
    return {
        "made_by": MADE_BY,
        "format": FORMAT,
        "run": experiment.folder.path.name,
        "model": subject.method,
        "seed": subject.seed,
        "arch": network.arch,
        "parameters": count_parameters(model.network),
        "classes": experiment.data.classes,
        "taps": list_taps(experiment, network),
        "teacher": None if teacher is None else {"arch": teacher.arch, "weights": teacher.weights_hash},
        "weights": subject.weights_hash,
        "state_dict": hash_weights(model.network),
        "images": experiment.data.fingerprint,
        "preprocessing": {
            "input": INPUT,
            "output": OUTPUT,
            "shape": ["batch", 3, "height", "width"],
            "dtype": "uint8",
            "channels": "red, green, blue",
            "image_size": preprocessing.image_size,
            "resize": RESIZED[preprocessing.resize],
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "in_graph": ["resize", "divide by 255", "subtract mean", "divide by std"],
        },
        "config": experiment.config.model_dump(mode="json"),
        "versions": {"python": here["python"], **here["packages"], "commit": here["git"]["commit"]},
    }


def _write_files(prepared: _Prepared, folder: Path, quantize: bool) -> Export:
    model, metadata, reference = prepared.model, prepared.metadata, prepared.reference
    fresh = prepared.experiment.build(prepared.network, pretrained=False)
    load_weights = partial(export.load_weights, network=fresh, preprocessing=model.preprocessing)
    checks = [
        _write_checked(
            folder / WEIGHTS, lambda path: save(path, copy_weights(model.network)), load_weights, reference
        ),
        _write_checked(
            folder / PROGRAM, partial(export.write_program, model, metadata), export.load_program, reference
        ),
    ]
    missing = export.find_missing(*NEEDED_FOR_ONNX)
    if missing:
        note = f"not written, {', '.join(missing)} missing: pip install -r {REQUIREMENTS}"
        checks.append(CheckedFile(ONNX, note=note))
    else:
        write = partial(export.write_onnx, model, metadata)
        checks.append(_write_checked(folder / ONNX, write, export.load_onnx, reference))
    quantized = _quantize(prepared, folder) if quantize else None
    script = _write_script(prepared, folder, [PROGRAM] if missing else [ONNX, PROGRAM])
    exported = Export(folder, metadata, checks, script, quantized)
    written = metadata | {"checks": checks, "image_files": script, "quantized": quantized}
    write_text(folder / METADATA, _format_json(to_plain(written)))
    write_text(folder / CARD, format_card(exported))
    return exported


def _write_checked(
    path: Path, write: Callable[[Path], None], load: Callable[[Path], Runner], reference: Reference
) -> CheckedFile:
    write(path)
    return check_file(path, load(path), reference)


def _write_script(prepared: _Prepared, folder: Path, graphs: list[str]) -> CheckedScript | None:
    """Write predict.py and its settings, and compare it with the decoder."""
    data, reference = prepared.experiment.config.data, prepared.reference
    chosen = choose_evenly(len(prepared.positions), COMPARED_FILES)
    found = find_files(data, prepared.positions[chosen].tolist())
    settings = prepared.metadata["preprocessing"] | {
        "bit_depth": data.bit_depth if found is None else find_bit_depth(data, *found),
        "classes": prepared.metadata["classes"],
        "graphs": graphs,
        "formats": FORMATS,
        "sha256": {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != WEIGHTS},
    }
    write_text(folder / PREPROCESSING, _format_json(settings))
    shutil.copyfile(Path(__file__).with_name(SCRIPT), folder / SCRIPT)
    if found is None:
        return None
    same = Reference(reference.pixels[chosen], reference.logits[chosen], reference.single)
    return check_script(folder / SCRIPT, graphs[0], found[1], prepared.model, same)


def _quantize(prepared: _Prepared, folder: Path) -> Quantized:
    """Write the int8 file and measure it."""
    experiment, data = prepared.experiment, prepared.experiment.data
    calibration = data.train.load_raw(choose_evenly(len(data.train), CALIBRATION_IMAGES)).cpu()
    onnx, int8 = folder / ONNX, folder / QUANTIZED
    method = write_quantized(onnx, int8, prepared.model.network, calibration, prepared.metadata)
    positions = choose_evenly(len(data.test), MEASURED_IMAGES)
    rows = compare_deployments(
        prepared.model,
        {"onnxruntime float32": onnx, "onnxruntime int8": int8},
        _load_pixels(experiment, positions),
        data.test.labels.cpu()[positions],
    )
    calibrated = len(calibration) if method == "static" else 0
    threads, processor = torch.get_num_threads(), collect_environment()["processor"]
    return Quantized(method, calibrated, len(positions), threads, processor, rows)


def choose_evenly(count: int, wanted: int) -> Tensor:
    """Choose at most `wanted` positions spread over 0..count - 1."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()


def _load_pixels(experiment: Experiment, positions: Tensor) -> Tensor:
    return experiment.data.test.load_raw(positions).cpu()


def _format_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
