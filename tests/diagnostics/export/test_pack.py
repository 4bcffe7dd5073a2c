"""Of diagnostics/export/pack.py, diagnostics/export/checks.py, diagnostics/export/card.py,
diagnostics/export/folder.py, diagnostics/export/quantize.py, diagnostics/export/predict.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.files.decode import decode_files
from diagnostics.cost import Latency
from diagnostics.evaluation.recording import EvaluatedModel
from diagnostics.export import pack
from diagnostics.export.card import format_card, summarise_export
from diagnostics.export.checks import Reference, check_file, find_bit_depth, find_files
from diagnostics.export.folder import refuse_foreign
from diagnostics.export.pack import choose_evenly, export_model, refuse_export
from diagnostics.export.quantize import QUANTIZED, Deployment, Quantized
from errors import MachineError, UserError
from models.checkpoint import hash_weights
from models.export import NEEDED_FOR_ONNX, ONNX, PROGRAM, WEIGHTS, find_missing
from settings.images import Data

FILES = {WEIGHTS, PROGRAM, "README.md", "metadata.json", "preprocessing.json", "predict.py"}


def make_subject(experiment) -> EvaluatedModel:
    """Make a student with random weights as if it were trained."""
    torch.manual_seed(0)
    network = experiment.build(experiment.config.student).eval()
    return EvaluatedModel("kd", "kd", 0, "resnet8", "abcd", True, True, None, [], lambda: network, "cifar")


@pytest.fixture
def export(make_experiment, tmp_path):
    """`export()`: the tiny experiment's student in the folder out."""
    experiment = make_experiment()
    student = make_subject(experiment)

    def run(quantize: bool = False):
        return export_model(experiment, student, None, tmp_path / "out", quantize=quantize)

    run.experiment, run.student = experiment, student  # type: ignore[attr-defined]
    return run


def test_folder_holds_checked_files_and_card(export, tmp_path) -> None:
    made = export()
    onnx = set() if find_missing(*NEEDED_FOR_ONNX) else {ONNX}
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | onnx
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing temporary
    for one in made.checks:
        if one.file in FILES | onnx:
            assert one.agreement == 1.0 and one.difference < 1e-4
        else:
            assert "pip install -r requirements-export.txt" in one.note and one.bytes is None
    assert made.script is not None and (made.script.count, made.script.agreement) == (32, 1.0)
    known = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert known["state_dict"] == hash_weights(export.student.build()) and known["config"]["name"] == "tiny"
    assert known["taps"] == ["layer2.0", "fc:input"] and known["teacher"] is None
    test = export.experiment.data.test
    right = torch.cat([export.student.build()(batch.images) for batch in test.iter_batches(100)]).argmax(1)
    assert known["accuracy"]["top1"] == (right == test.labels).double().mean().item()
    card = (tmp_path / "out" / "README.md").read_text()
    assert card == format_card(made) and card.startswith("# resnet8 of run tiny: kd, seed 0\n\nA classifier")
    assert "Classes in order: ash, birch, cedar, date." in card and "| model.pt | plain state dict" in card
    assert known["weights"] in card and f"{known['accuracy']['top1']:.2%} right" in card
    assert any("largest difference" in line for line in summarise_export(made))


def test_earlier_export_is_replaced_and_other_files_never(export, tmp_path) -> None:
    folder = tmp_path / "out"
    export()
    (folder / WEIGHTS).write_bytes(b"old")
    export()
    assert (folder / WEIGHTS).stat().st_size > 3 and list(tmp_path.iterdir()) == [folder]
    (folder / "mine.txt").touch()
    with pytest.raises(UserError, match="mine.txt"):
        export()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    refuse_foreign(foreign)  # empty: may be filled
    (foreign / "README.md").write_text("of somebody else")
    with pytest.raises(UserError, match="other files"):
        refuse_foreign(foreign)


def test_file_with_other_logits_is_not_written(export, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pack.export, "load_program", lambda path: lambda pixels: torch.zeros(len(pixels), 4))  # type: ignore[attr-defined]
    with pytest.raises(MachineError, match="model_rgb_uint8.pt2 gives logits that differ"):
        export()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", [[0], [1]])  # of all images together, and of one alone
def test_not_a_number_is_a_difference(tmp_path, broken) -> None:
    (tmp_path / "a").touch()
    reference = Reference(torch.zeros(2, 3, 4, 4), torch.ones(2, 3), torch.ones(1, 3))
    calls = iter([0, 1])
    with pytest.raises(MachineError):
        check_file(
            tmp_path / "a",
            lambda pixels: torch.full((len(pixels), 3), float("nan") if next(calls) in broken else 1.0),
            reference,
        )


def test_int8_without_its_packages_is_refused_first(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("models.export.find_missing", lambda *names: ["onnx"])
    with pytest.raises(UserError, match="--quantize needs onnx: pip install -r requirements-export.txt"):
        refuse_export(tmp_path / "out", quantize=True)
    refuse_export(tmp_path / "out", quantize=False)


def make_photos(root: Path) -> None:
    """Write pictures of varied size, mode and orientation in class folders."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("ash", "birch"):
            (root / part / name).mkdir(parents=True)
            for number, mode in enumerate(("RGB", "L", "CMYK", "P", "RGBA", "LA", "RGB")):
                height, width = rng.integers(9, 70, 2)
                image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
                suffix = "jpg" if mode in ("RGB", "L", "CMYK") else "png"
                turned = Image.Exif()
                turned[0x0112] = number + 1
                path = root / part / name / f"{number}.{suffix}"
                image.convert(mode if mode != "P" else "RGB").convert(mode).save(path, exif=turned)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_script_reads_pictures_as_the_decoder_does(make_experiment, tmp_path) -> None:
    make_photos(tmp_path / "photos")
    deep = np.random.default_rng(1).integers(0, 2**12, (30, 20)).astype(np.uint16)
    deep[0, 0] = 2**12 - 1
    Image.fromarray(deep).save(tmp_path / "photos/test/ash/9.png")
    data = {"data.root": tmp_path / "photos", "data.cache_dir": tmp_path / "cache", "losses.crd.num_negatives": 2}
    experiment = make_experiment(*(f"{key}={value}" for key, value in data.items()))
    made = export_model(experiment, make_subject(experiment), None, tmp_path / "out", quantize=False)
    assert made.script is not None and made.script.count == 15 and made.script.levels <= 1
    assert json.loads((tmp_path / "out" / "preprocessing.json").read_text())["bit_depth"] == 12


def test_script_runs_alone_and_explains_itself(export, tmp_path) -> None:
    export()
    picture = export.experiment.config.data.root / "test" / "ash" / "0.png"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(tmp_path / "out" / "predict.py"), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    done = run(PROGRAM, str(picture))
    assert done.returncode == 0, done.stderr
    pixels = torch.from_numpy(next(decode_files([picture], 16)))
    mean, std = export.experiment.data.mean[:, None, None], export.experiment.data.std[:, None, None]
    shares = export.student.build()((pixels / 255 - mean) / std)[0].softmax(0)
    best = int(shares.argmax())
    assert done.stdout.startswith(f"{picture}: {export.experiment.data.classes[best]} {shares[best]:.1%}")
    asked, empty = run("--help"), run()
    assert (asked.returncode, empty.returncode) == (0, 2) and asked.stdout == empty.stdout
    for part in ("Classify image files", "image file", "example:", "python predict.py photo.jpg", PROGRAM):
        assert part in asked.stdout


def test_script_uses_what_it_is_given(export, tmp_path) -> None:
    export()
    out, picture = tmp_path / "out", export.experiment.config.data.root / "test" / "ash" / "0.png"

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(out / "predict.py"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    bad, postscript = tmp_path / "\x1b[31mbad.png", tmp_path / "script.png"
    bad.write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(postscript, format="EPS")
    done = run(PROGRAM, bad, postscript, picture)  # goes on after images that cannot be read
    assert done.returncode == 1 and done.stdout.startswith(f"{picture}: ") and "\x1b" not in done.stderr
    named = [line.split(": ")[0] for line in done.stderr.splitlines()]
    assert named == [f"{tmp_path}/\\x1b[31mbad.png", str(postscript)]
    alone = run(PROGRAM)
    assert alone.returncode == 2 and "usage: predict.py" in alone.stdout
    other = tmp_path / "other" / PROGRAM
    other.parent.mkdir()
    other.write_bytes(b"no program")  # used although the export has one of this name
    assert run(other, picture).returncode == 1 and run(tmp_path / "absent" / PROGRAM, picture).returncode == 1
    for graph in (PROGRAM, *(() if find_missing(*NEEDED_FOR_ONNX) else (ONNX,))):
        content = bytearray((out / graph).read_bytes())
        content[len(content) // 2] ^= 1
        (out / graph).write_bytes(content)
        done = run(graph, picture)
        assert done.returncode == 1 and f"{graph} is damaged: its SHA-256" in done.stderr


def test_bit_depth_is_the_decoders(tmp_path) -> None:
    for part in ("train", "test"):
        for name in ("ash", "birch"):
            (tmp_path / "deep" / part / name).mkdir(parents=True)
            for number in range(2):
                grey = np.full((9, 7), 2**10 - 1 - number, dtype=np.uint16)
                Image.fromarray(grey).save(tmp_path / "deep" / part / name / f"{number}.png")
    data = Data(source="folder", root=tmp_path / "deep", image_size=8, crop=0, cache_dir=tmp_path / "cache")
    source, files = find_files(data, [0, 1])
    assert [file.name for file in files] == ["0.png", "1.png"] and find_bit_depth(data, source, files) == 10
    assert find_bit_depth(data.model_copy(update={"bit_depth": 14}), source, files) == 14
    assert find_files(Data(), [0]) is None


@pytest.mark.skipif(bool(find_missing(*NEEDED_FOR_ONNX)), reason="int8 needs requirements-export.txt")
def test_int8_is_written_and_measured(export, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("diagnostics.export.quantize.LATENCY_SECONDS", 0.05)
    made = export(quantize=True)
    assert made.quantized is not None and made.quantized.method == "static" and made.quantized.images == 32
    assert made.quantized.calibration_images == 64 and (tmp_path / "out" / QUANTIZED).exists()
    whole, onnx, small = made.quantized.rows
    assert whole.agreement == onnx.agreement == 1.0 and whole.top1 == made.metadata["accuracy"]["top1"]
    assert small.bytes < onnx.bytes and small.agreement > 0.5


def test_slower_int8_is_reported_as_slower(export) -> None:
    made = export()

    def show(milliseconds: float, iqr: float) -> str:
        rows = [
            Deployment(name, 100, top1, 0.9, [Latency(1, 9, median, iqr, 1000 / median)])
            for name, median, top1 in (("torch", 9.0, 0.9), ("float", 2.0, 0.9), ("int8", milliseconds, 0.8))
        ]
        quantized = Quantized("static", 5, 50, 1, "processor", rows)
        exported = pack.replace(made, quantized=quantized)  # type: ignore[attr-defined]
        shown = "\n".join(summarise_export(exported))
        head = "| runtime | bytes | top-1 | agrees with float | ms, batch 1 (iqr) |"
        row = f"| torch | 100 | 90.00% | 90.00% | 9.00 ({iqr:.2f}) |"
        assert f"{head}\n| --- | --- | --- | --- | --- |\n{row}\n| float |" in shown
        assert shown.partition("int8 is static")[2].partition("float32 in onnx")[0] in format_card(exported)
        return shown

    assert "slower, 2.00 times the time of float32" in show(4, 0.1) and "−10.00 points" in show(4, 0.1)
    assert "2.00 times as fast as" in show(1, 0.1) and "no difference shown" in show(1, 3)


def test_positions_are_spread_over_all_images() -> None:
    assert choose_evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert choose_evenly(101, 3).tolist() == [0, 50, 100]
    assert len(set(choose_evenly(1000, 256).tolist())) == 256
