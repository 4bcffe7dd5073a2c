"""One model of a run as a folder to take away: weights, graphs, metadata, a card and a script, all checked.

Letters: B images, S side of the network's input in pixels.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diagnostics.evaluation.evaluated_models import network_of
from diagnostics.evaluation.recording import Subject
from diagnostics.export.card import Export, card
from diagnostics.export.checks import Checked, FilesChecked, Reference, check, check_files
from diagnostics.export.facts import facts_of
from diagnostics.export.folder import CARD, METADATA, PREPROCESSING, SCRIPT, refuse_foreign, whole_folder
from diagnostics.export.quantize import CALIBRATION_IMAGES, QUANTIZED, Quantized, compare, write_quantized
from diagnostics.export.source_files import bit_depth_of, files_of
from diagnostics.plain import to_plain
from errors import UserError
from files import write_text
from models import export
from models.export import NEEDED_FOR_ONNX, REQUIREMENTS, FromPixels, Preprocessing, Runner
from settings.networks import Network
from training.evaluation import compute_top1, predict
from training.experiment import Experiment
from training.run.environment import environment

COMPARED_IMAGES = 256  # test images on which each file is compared with the model
COMPARED_FILES = 64  # of them that are read from their files as well
MEASURED_IMAGES = 5000  # test images at most on which int8 is measured


def refuse_export(folder: Path, quantize: bool) -> None:
    """Raise `UserError` for what an export cannot do, before anything is loaded."""
    refuse_foreign(folder)
    lacking = export.missing(*NEEDED_FOR_ONNX)
    if quantize and lacking:
        raise UserError(f"--quantize needs {', '.join(lacking)}: pip install -r {REQUIREMENTS}, or leave it out")


def preprocessing_of(experiment: Experiment, network: Network) -> Preprocessing:
    """What a network's images go through: the one place where an export learns of size and normalisation."""
    data = experiment.data
    mean, std = tuple(data.mean.tolist()), tuple(data.std.tolist())
    return Preprocessing(data.test.side, mean, std, data.settings.resize)


def export_subject(
    experiment: Experiment, subject: Subject, teacher: Subject | None, folder: Path, *, quantize: bool
) -> Export:
    """Write a model to `folder`, each file loaded again and compared with it.

    Raises:
        UserError: a folder that holds other files.
        MachineError: a file that computes something else than the model; then nothing is written.
    """
    packer = _Packer.of(experiment, subject, teacher)
    with whole_folder(folder) as partial:
        made = packer.fill(partial, quantize)
    return replace(made, folder=folder)


@dataclass(frozen=True)
class _Packer:
    """A model, what is known of it, and what its files are compared on."""

    experiment: Experiment
    network: Network
    model: FromPixels
    facts: dict[str, Any]
    positions: Tensor  # (B,) of the test images in `reference`
    reference: Reference

    @staticmethod
    def of(experiment: Experiment, subject: Subject, teacher: Subject | None) -> _Packer:
        network, data = network_of(experiment, subject), experiment.data
        built = subject.build().float()
        machine = replace(experiment.machine, bfloat16=False, float16=False)
        top1 = compute_top1(predict(built, data.test, machine), data.test.labels).item()
        model = FromPixels(export.for_deployment(built), preprocessing_of(experiment, network)).eval()
        facts = facts_of(experiment, subject, network, teacher, model, top1)
        positions = evenly(len(data.test), COMPARED_IMAGES)
        images = data.test.normalised(positions.to(data.test.device)).cpu()
        with torch.no_grad():
            logits, of_one = model.network(images), model.network(images[:1])
        reference = Reference(_pixels(experiment, positions), logits, of_one)
        return _Packer(experiment, network, model, facts, positions, reference)

    def fill(self, folder: Path, quantize: bool) -> Export:
        """Write all files."""
        checks = [*self._weights(folder), *self._graphs(folder)]
        graphs = [one.file for one in reversed(checks) if one.file in (export.ONNX, export.PROGRAM) and one.bytes]
        files = self._script(folder, graphs)
        quantized = self._quantized(folder) if quantize else None
        made = Export(folder, self.facts, checks, files, quantized)
        written = self.facts | {"checks": checks, "image_files": files, "quantized": quantized}
        write_text(folder / METADATA, _json(to_plain(written)))
        write_text(folder / CARD, card(made))
        return made

    def _fresh(self) -> nn.Module:
        return self.experiment.build(self.network, pretrained=False)

    def _weights(self, folder: Path) -> list[Checked]:
        network, preprocessing = self.model.network, preprocessing_of(self.experiment, self.network)

        def load(path: Path) -> Runner:
            return export.load_weights_file(path, self._fresh(), preprocessing)

        def write_safetensors(path: Path) -> None:
            export.write_safetensors(network, path, self.facts)

        return [
            self._made(folder / export.WEIGHTS, lambda path: export.write_weights(network, path), load),
            self._made(folder / export.SAFETENSORS, write_safetensors, load, "safetensors"),
        ]

    def _graphs(self, folder: Path) -> list[Checked]:
        model, facts = self.model, self.facts
        return [
            self._made(
                folder / export.PROGRAM, lambda path: export.write_program(model, path, facts), export.load_program
            ),
            self._made(
                folder / export.ONNX,
                lambda path: export.write_onnx(model, path, facts),
                export.load_onnx,
                *NEEDED_FOR_ONNX,
            ),
        ]

    def _made(
        self, path: Path, write: Callable[[Path], None], load: Callable[[Path], Runner], *needed: str
    ) -> Checked:
        """Write a file and compare it, or say which packages it needs."""
        lacking = export.missing(*needed)
        if lacking:
            note = f"not written, {', '.join(lacking)} missing: pip install -r {REQUIREMENTS}"
            return Checked(path.name, None, None, None, None, note)
        write(path)
        return check(path, load(path), self.reference)

    def _script(self, folder: Path, graphs: list[str]) -> FilesChecked | None:
        """Write predict.py and what it reads, and compare it with the decoder where images are files."""
        data = self.experiment.config.data
        positions = evenly(len(self.positions), COMPARED_FILES)
        found = files_of(data, self.positions[positions].tolist())
        depth = data.bit_depth if found is None else bit_depth_of(data, *found)
        settings = self.facts["preprocessing"] | {
            "bit_depth": depth,
            "classes": self.facts["classes"],
            "graphs": graphs,
        }
        write_text(folder / PREPROCESSING, _json(settings))
        shutil.copyfile(Path(__file__).with_name(SCRIPT), folder / SCRIPT)
        if found is None:
            return None
        reference = self.reference
        some = Reference(reference.pixels[positions], reference.logits[positions], reference.of_one)
        return check_files(folder / SCRIPT, graphs[0], found[1], self.model, some)

    def _quantized(self, folder: Path) -> Quantized:
        data = self.experiment.data
        calibration = data.train.raw(evenly(len(data.train), CALIBRATION_IMAGES)).cpu()
        method = write_quantized(
            folder / export.ONNX, folder / QUANTIZED, self.model.network, calibration, self.facts
        )
        positions = evenly(len(data.test), MEASURED_IMAGES)
        files = {"onnxruntime float32": folder / export.ONNX, "onnxruntime int8": folder / QUANTIZED}
        labels = data.test.labels.cpu()[positions]
        rows = compare(self.model, files, _pixels(self.experiment, positions), labels)
        return Quantized(
            method,
            len(calibration) if method == "static" else 0,
            len(positions),
            torch.get_num_threads(),
            environment()["processor"],
            rows,
        )


def evenly(count: int, wanted: int) -> Tensor:
    """At most `wanted` positions spread over 0..count - 1, so that all classes of sorted images are met."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()


def _pixels(experiment: Experiment, positions: Tensor) -> Tensor:
    return experiment.data.test.raw(positions).cpu()


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
