"""Of diagnostics/export/: pack.py, checks.py, facts.py, card.py, folder.py, source_files.py, quantize.py, and
predict.py as it is shipped: diagnostics/export/pack.py, diagnostics/export/checks.py, diagnostics/export/facts.py,
diagnostics/export/card.py, diagnostics/export/folder.py, diagnostics/export/source_files.py,
diagnostics/export/quantize.py, diagnostics/export/predict.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.files.decode import decode_files
from diagnostics.cost import Latency
from diagnostics.evaluation.recording import Subject
from diagnostics.export import pack
from diagnostics.export.card import card, lines
from diagnostics.export.checks import Reference, check
from diagnostics.export.folder import refuse_foreign
from diagnostics.export.pack import evenly, export_subject, refuse_export
from diagnostics.export.quantize import QUANTIZED, Deployed, Quantized
from diagnostics.export.source_files import bit_depth_of, files_of
from errors import MachineError, UserError
from models.checkpoint import weights_hash
from models.export import NEEDED_FOR_ONNX, ONNX, PROGRAM, SAFETENSORS, WEIGHTS, missing
from settings.images import Data

ALWAYS = {WEIGHTS, PROGRAM, "README.md", "metadata.json", "preprocessing.json", "predict.py"}


@pytest.fixture
def subject(make_experiment):
    """An experiment, and a student with random weights as if it were trained."""
    experiment = make_experiment()
    torch.manual_seed(0)
    network = experiment.build(experiment.config.student).eval()
    build = partial(lambda: network)
    return experiment, Subject("kd", "kd", 0, "resnet8", "abcd", True, True, None, [], build, "cifar")


def test_a_folder_has_all_that_a_person_needs(subject, tmp_path):
    experiment, student = subject
    folder = tmp_path / "deep" / "out"
    made = export_subject(experiment, student, None, folder, quantize=False)
    onnx = set() if missing(*NEEDED_FOR_ONNX) else {ONNX}
    safe = set() if missing("safetensors") else {SAFETENSORS}
    assert {path.name for path in folder.iterdir()} == ALWAYS | onnx | safe
    assert [path.name for path in folder.parent.iterdir()] == ["out"]  # nothing temporary
    for one in made.checks:
        if one.file in ALWAYS | onnx | safe:
            assert one.agreement == 1.0 and max(one.difference, one.difference_of_one) < 1e-4
        else:
            assert "pip install -r requirements-export.txt" in one.note and one.bytes is None
    assert made.files is not None and (made.files.count, made.files.agreement) == (32, 1.0)
    told = json.loads((folder / "metadata.json").read_text())
    assert told["state_dict"] == weights_hash(student.build()) and told["config"]["name"] == "tiny"
    assert told["taps"] == ["layer2.0", "fc:input"] and told["teacher"] is None
    right = torch.cat([student.build()(batch.images) for batch in experiment.data.test.batches(100)])
    assert told["accuracy"]["top1"] == (right.argmax(1) == experiment.data.test.labels).double().mean().item()
    assert "ash, birch, cedar, date" in card(made) and "rgb_uint8" in card(made)
    assert any("largest difference" in line for line in lines(made))


def test_an_earlier_export_is_replaced_and_other_files_never(subject, tmp_path):
    experiment, student = subject
    folder = tmp_path / "out"
    export_subject(experiment, student, None, folder, quantize=False)
    (folder / WEIGHTS).write_bytes(b"old")
    export_subject(experiment, student, None, folder, quantize=False)
    assert (folder / WEIGHTS).stat().st_size > 3 and list(tmp_path.iterdir()) == [folder]
    (folder / "mine.txt").touch()
    with pytest.raises(UserError, match="mine.txt"):
        export_subject(experiment, student, None, folder, quantize=False)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    refuse_foreign(foreign)  # empty: may be filled
    (foreign / "README.md").write_text("of somebody else")
    with pytest.raises(UserError, match="other files"):
        refuse_foreign(foreign)


def test_a_file_that_computes_something_else_is_not_handed_over(subject, tmp_path, monkeypatch):
    experiment, student = subject
    monkeypatch.setattr(pack.export, "load_program", lambda path: lambda pixels: torch.zeros(len(pixels), 4))
    with pytest.raises(MachineError, match="model_rgb_uint8.pt2 gives logits that differ"):
        export_subject(experiment, student, None, tmp_path / "out", quantize=False)
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_a_difference(tmp_path):
    (tmp_path / "a").touch()
    reference = Reference(torch.zeros(2, 3, 4, 4), torch.ones(2, 3), torch.ones(1, 3))
    with pytest.raises(MachineError):
        check(tmp_path / "a", lambda pixels: torch.full((len(pixels), 3), float("nan")), reference)


def test_quantising_without_its_packages_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr("models.export.missing", lambda *names: ["onnx"])
    with pytest.raises(UserError, match="--quantize needs onnx: pip install -r requirements-export.txt"):
        refuse_export(tmp_path / "out", quantize=True)
    refuse_export(tmp_path / "out", quantize=False)


def make_photos(root: Path) -> list[Path]:
    """Pictures of varied size, mode and orientation in class folders."""
    rng = np.random.default_rng(0)
    files = []
    for part in ("train", "test"):
        for name in ("ash", "birch"):
            (root / part / name).mkdir(parents=True)
            for number, mode in enumerate(("RGB", "L", "CMYK", "P", "RGBA", "LA", "RGB")):
                height, width = rng.integers(9, 70, 2)
                image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
                suffix = "jpg" if mode in ("RGB", "L", "CMYK") else "png"
                turned = Image.Exif()
                turned[0x0112] = number + 1
                files.append(root / part / name / f"{number}.{suffix}")
                image.convert(mode if mode != "P" else "RGB").convert(mode).save(files[-1], exif=turned)
    return files


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_the_script_reads_pictures_as_the_decoder_does(subject, make_experiment, tmp_path):
    files = make_photos(tmp_path / "photos")
    deep = np.random.default_rng(1).integers(0, 2**12, (30, 20)).astype(np.uint16)
    deep[0, 0] = 2**12 - 1
    Image.fromarray(deep).save(tmp_path / "photos/test/ash/9.png")
    files.append(tmp_path / "photos/test/ash/9.png")
    data = {"data.root": tmp_path / "photos", "data.cache_dir": tmp_path / "cache", "losses.crd.num_negatives": 2}
    experiment = make_experiment(*(f"{key}={value}" for key, value in data.items()))
    network = experiment.build(experiment.config.student).eval()
    student = Subject("kd", "kd", 0, "resnet8", "abcd", True, True, None, [], lambda: network, "cifar")
    made = export_subject(experiment, student, None, tmp_path / "out", quantize=False)
    assert made.files is not None and made.files.count == 15 and made.files.levels <= 1
    assert json.loads((tmp_path / "out" / "preprocessing.json").read_text())["bit_depth"] == 12


def test_the_script_runs_alone(subject, tmp_path):
    experiment, student = subject
    export_subject(experiment, student, None, tmp_path / "out", quantize=False)
    picture = experiment.config.data.root / "test" / "ash" / "0.png"
    words = [sys.executable, "-I", str(tmp_path / "out" / "predict.py"), PROGRAM, str(picture)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}, timeout=300)
    assert done.returncode == 0, done.stderr
    pixels = torch.from_numpy(next(decode_files([picture], 16)))
    mean, std = experiment.data.mean[:, None, None], experiment.data.std[:, None, None]
    shares = student.build()((pixels / 255 - mean) / std)[0].softmax(0)
    best = int(shares.argmax())
    assert done.stdout.startswith(f"{picture}: {experiment.data.classes[best]} {shares[best]:.1%}")


def test_bit_depth_is_the_decoders(tmp_path):
    make_photos_of_depth(tmp_path / "deep", 10)
    data = Data(source="folder", root=tmp_path / "deep", image_size=8, crop=0, cache_dir=tmp_path / "cache")
    source, files = files_of(data, [0, 1])
    assert [file.name for file in files] == ["0.png", "1.png"] and bit_depth_of(data, source, files) == 10
    assert bit_depth_of(data.model_copy(update={"bit_depth": 14}), source, files) == 14
    assert files_of(Data(), [0]) is None


def make_photos_of_depth(root: Path, bits: int) -> None:
    for part in ("train", "test"):
        for name in ("ash", "birch"):
            (root / part / name).mkdir(parents=True)
            for number in range(2):
                grey = np.full((9, 7), 2**bits - 1 - number, dtype=np.uint16)
                Image.fromarray(grey).save(root / part / name / f"{number}.png")


@pytest.mark.skipif(bool(missing(*NEEDED_FOR_ONNX)), reason="int8 needs requirements-export.txt")
def test_int8_is_written_and_measured(subject, tmp_path, monkeypatch):
    monkeypatch.setattr("diagnostics.export.quantize.LATENCY_SECONDS", 0.05)
    experiment, student = subject
    made = export_subject(experiment, student, None, tmp_path / "out", quantize=True)
    assert made.quantized is not None and made.quantized.method == "static" and made.quantized.images == 32
    assert made.quantized.calibration_images == 64 and (tmp_path / "out" / QUANTIZED).exists()
    whole, onnx, small = made.quantized.rows
    assert whole.agreement == onnx.agreement == 1.0 and whole.top1 == made.facts["accuracy"]["top1"]
    assert small.bytes < onnx.bytes and small.agreement > 0.5


def test_int8_that_is_slower_is_told_so(subject, tmp_path):
    experiment, student = subject
    made = export_subject(experiment, student, None, tmp_path / "out", quantize=False)

    def row(name: str, milliseconds: float, iqr: float, top1: float) -> Deployed:
        return Deployed(name, 100, top1, 0.9, [Latency(1, 9, milliseconds, iqr, 1000 / milliseconds)])

    def told(milliseconds: float, iqr: float) -> str:
        rows = [row("torch", 9, 0, 0.9), row("float", 2, iqr, 0.9), row("int8", milliseconds, iqr, 0.8)]
        quantized = Quantized("static", 5, 50, 1, "processor", rows)
        return "\n".join(lines(pack.replace(made, quantized=quantized)))

    assert "slower, 2.00 times the time of float32" in told(4, 0.1) and "−10.00 points" in told(4, 0.1)
    assert "2.00 times as fast as" in told(1, 0.1) and "no difference shown" in told(1, 3)


def test_positions_are_spread_over_all_images() -> None:
    assert evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly(101, 3).tolist() == [0, 50, 100]
    assert len(set(evenly(1000, 256).tolist())) == 256
