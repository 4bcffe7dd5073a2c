"""Resuming, phases, evaluation and export refuse a run made from other data."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import main_eval
from errors import UserError, run_command, warn
from models.checkpoint import load
from tests.faults import harness
from training.run.identity import check_identity, list_changes, write_identity
from training.run.record_file import write_record
from training.run.run_folder import write_config

SHORT = (
    "--quiet",
    "--set",
    "teacher.epochs=1",
    "training.epochs=2",
    "methods=[two_stage, scratch]",
)


@pytest.fixture(scope="module")
def trained(train, image_root, tmp_path_factory):
    """A folder with a run and the images it was made from, both of its own."""
    place = tmp_path_factory.mktemp("identity")
    shutil.copytree(image_root, place / "images")
    train(place, "--phase", "all", *SHORT, f"data.root={place / 'images'}")
    return place


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """A copy of both, evaluated."""
    place = copy_run(trained, tmp_path_factory.mktemp("evaluated"))
    assert harness.evaluate(str(place / "tiny")).code == 0
    return place


@pytest.fixture(scope="module")
def two_files(trained, tiny_config, tmp_path_factory):
    """How to evaluate two files into a folder and read what was found, what that gave, and the folder."""
    files = ("--teacher", trained / "tiny/teacher/model.pt", "--student", trained / "tiny/seed0/scratch/model.pt")

    def evaluate_files(out, *words):
        given = (*files, "--config", tiny_config, "--output-dir", out, *words)
        assert harness.evaluate(*map(str, given)).code == 0
        (folder,) = out.iterdir()
        report = json.loads((folder / "report.json").read_text())
        return [report["calibration"], report["representation"]]

    out = tmp_path_factory.mktemp("files")
    return evaluate_files, evaluate_files(out), out


def copy_run(place: Path, target: Path) -> Path:
    """A folder's run and images; the run's config names the copied images."""
    shutil.copytree(place, target, dirs_exist_ok=True)
    config = target / "tiny" / "config.yaml"
    _, _, text = config.read_text(encoding="utf-8").partition("\n")  # without the digest, as it says to do
    text = re.sub(r"root: .*", f"root: {target / 'images'}", text)
    config.write_text(text, encoding="utf-8")
    return target


@pytest.fixture
def run(trained, tmp_path):
    return copy_run(trained, tmp_path)


@pytest.fixture
def evaluate(monkeypatch, capfd):
    """`main_eval.py` in this process, with next to no time for latencies and an empty picture for each figure."""
    monkeypatch.setattr("diagnostics.evaluation.recording.COST_SECONDS", 0.001)
    monkeypatch.setattr("diagnostics.report.files.to_bytes", lambda figure, kind: bytes(24))

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["main_eval.py", *map(str, words), "--quiet"])
        capfd.readouterr()
        code = run_command(main_eval.run)
        out, err = capfd.readouterr()
        return code, out, err

    return call


def rename_a_class(images: Path) -> str:
    for part in ("train", "test"):
        (images / part / "birch").rename(images / part / "zelkova")
    return "classes changed: birch gone, zelkova new"


def swap_two_classes(images: Path) -> str:
    for part in ("train", "test"):
        for old, new in (("ash", "x"), ("birch", "ash"), ("x", "birch")):
            (images / part / old).rename(images / part / new)
    return "pixels (or the order) of the train images changed"


def add_an_image(images: Path) -> str:
    shutil.copy(images / "train" / "ash" / "0.png", images / "train" / "ash" / "99.png")
    return "64 train images became 65"


def change_a_pixel(images: Path) -> str:
    path = images / "test" / "date" / "3.png"
    picture = Image.open(path)
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(path)
    return "pixels (or the order) of the test images changed"


@pytest.mark.parametrize("change", [rename_a_class, swap_two_classes, add_an_image, change_a_pixel])
def test_other_images_are_refused_everywhere(run, call_main, evaluate, change) -> None:
    said = change(run / "images")
    (run / "tiny" / "seed0" / "scratch" / "result.json").unlink()  # so that there is something to go on with
    done = call_main(run, "--phase", "baselines", "--resume", *SHORT, f"data.root={run / 'images'}")
    for code, err in (
        (done.returncode, done.stderr),
        evaluate(run / "tiny")[::2],
        evaluate(run / "tiny", "--export", run / "out")[::2],
    ):
        assert code == 2 and said in err and "was made from other images" in err and len(err.splitlines()) == 1
    assert not (run / "out").exists() and not (run / "tiny" / "eval").exists()


def test_fresh_trains_on_other_images(run: Path, call_main) -> None:
    change_a_pixel(run / "images")
    done = call_main(run, "--phase", "all", "--fresh", *SHORT, f"data.root={run / 'images'}")
    assert done.returncode == 0, done.stderr


def test_hidden_folders_leave_the_images_the_same(run, evaluate) -> None:
    (run / "images" / "train" / ".ipynb_checkpoints").mkdir()
    assert evaluate(run / "tiny", "--quick")[0] == 0


def test_cues_and_normalisation_are_compared(make_experiment, tmp_path) -> None:
    plain = make_experiment()
    write_identity(tmp_path, plain.data)
    assert list_changes(tmp_path, plain.data) == []
    assert list_changes(tmp_path, make_experiment("shortcut.cue=tint").data) == ["the cues of the images changed"]
    (words,) = list_changes(tmp_path, make_experiment("data.mean=[0.1, 0.1, 0.1]").data)
    assert words.startswith("data.mean or data.std was")
    record = json.loads((tmp_path / "identity.json").read_text())
    assert record["data"]["classes"] == ["ash", "birch", "cedar", "date"] and len(record["mean"]) == 3
    assert (record["data"]["train"]["count"], record["data"]["test"]["count"]) == (64, 32)


def test_a_damaged_or_missing_identity_is_refused(make_experiment, tmp_path, capsys) -> None:
    data, path = make_experiment().data, tmp_path / "identity.json"
    write_identity(tmp_path, data)
    whole = path.read_text(encoding="utf-8")
    changed = (whole.replace("ash", "ask"), whole.replace('"decoder": ', '"decoder": 1'))
    for content in ("{", "[]", '{"data": []}', "[" * 9000, *changed):
        path.write_text(content)
        with pytest.raises(UserError, match=r"identity\.json is (damaged|not as it was written): put it back"):
            check_identity(tmp_path, data)
    write_record(path, {"data": []})
    with pytest.raises(UserError, match=r"identity\.json is not as it was written"):
        check_identity(tmp_path, data)
    path.unlink()
    assert capsys.readouterr().err == ""
    check_identity(tmp_path, data)  # beside a config without a digest, as the message allows
    assert "identity.json is not there: the images of this run are not compared" in capsys.readouterr().err
    write_config(tmp_path / "config.yaml", make_experiment().config)
    with pytest.raises(UserError, match=r"identity\.json is gone: put it back"):
        check_identity(tmp_path, data)


@pytest.mark.parametrize(
    ("fault", "job"),
    [
        ("removed", "teacher"),
        ("replaced", "teacher"),
        ("replaced", "seed0/two_stage/stage1"),
        ("edited", "seed0/two_stage/stage1"),
        ("edited", "seed0/two_stage/stage2"),
    ],
)
def test_weights_that_training_did_not_leave_are_refused(evaluated, tmp_path, evaluate, fault, job) -> None:
    run = copy_run(evaluated, tmp_path)
    path = run / "tiny" / job / "model.pt"
    if fault == "removed":
        path.unlink()
    elif fault == "replaced":
        shutil.copy(run / "tiny" / "seed0" / "scratch" / "model.pt", path)
    else:
        weights = load(path)
        weights["fc.bias"][0] += 1
        torch.save(weights, path)
    code, _, err = evaluate(run / "tiny")
    assert code == 2 and str(path) in err and ("is gone" if fault == "removed" else "is not the file") in err


def test_a_changed_given_teacher_is_refused(run, call_main) -> None:
    given = run / "given.pt"
    shutil.copy(run / "tiny" / "teacher" / "model.pt", given)
    words = (*SHORT, f"data.root={run / 'images'}", "name=other", f"teacher.checkpoint={given}")
    assert call_main(run, "--phase", "crd", *words).returncode == 0
    shutil.copy(run / "tiny" / "seed0" / "scratch" / "model.pt", given)
    for way in ("--resume", "--fresh"):
        done = call_main(run, "--phase", "crd", way, *words)
        assert done.returncode == 2 and "given.pt has changed since" in done.stderr
    assert call_main(run, "--phase", "all", "--fresh", *words).returncode == 0


def test_a_given_teacher_is_measured(run, call_main) -> None:
    warn.cache_clear()
    given = run / "given.pt"
    weights = load(run / "tiny" / "seed0" / "scratch" / "model.pt")
    torch.save(weights, given)
    settings = (f"data.root={run / 'images'}", f"teacher.checkpoint={given}", *SHORT[2:])
    done = call_main(run, "--phase", "crd", "--set", "name=good", *settings)
    top1 = json.loads((run / "good" / "teacher" / "result.json").read_text())["test_top1"]
    assert done.returncode == 0 and f"test top-1 {100 * top1:.1f} %" in done.stdout
    weights["fc.weight"], weights["fc.bias"] = (
        weights["fc.weight"] * 0,
        torch.tensor([9.0, 0, 0, 0]),
    )  # one class only
    torch.save(weights, given)
    done = call_main(run, "--phase", "crd", "--set", "name=bad", *settings)
    assert "is right on 25.0 % of the test images, hardly more than chance" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("conv1.weight", lambda w: w * torch.nan, "conv1.weight holds NaN or infinity"),
        ("fc.bias", lambda w: w / 0, "fc.bias holds NaN or infinity"),
        ("bn1.running_var", lambda w: -w, "bn1.running_var holds a negative variance"),
        ("conv1.weight", lambda w: w.to(torch.complex64), "conv1.weight holds complex numbers"),
        ("conv1.weight", lambda w: (100 * w).to(torch.int32), "conv1.weight holds int32 numbers"),
    ],
)
def test_unusable_weights_are_refused_before_training(run, call_main, name, value, said) -> None:
    weights = load(run / "tiny" / "teacher" / "model.pt")
    weights[name] = value(weights[name])
    torch.save(weights, run / "given.pt")
    settings = (f"data.root={run / 'images'}", f"teacher.checkpoint={run / 'given.pt'}", "name=other")
    done = call_main(run, "--phase", "crd", *SHORT, *settings)
    assert done.returncode == 2 and said in done.stderr and not (run / "other").exists()


def test_files_under_other_settings_are_recorded_again(two_files, tmp_path: Path) -> None:
    evaluate_files, first, out = two_files
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    for override in (
        "data.mean=[0.2, 0.2, 0.2]",
        "precision=bfloat16",
        "student.taps={penultimate: layer1.0, last: layer2.0}",
        "data.image_size=32",
    ):
        before, first = first, evaluate_files(tmp_path, "--set", override)
        assert first != before, override
    assert evaluate_files(tmp_path) == two_files[1]


def test_runs_with_equal_test_images_are_compared(evaluated, tmp_path: Path, call_main, evaluate) -> None:
    run = copy_run(evaluated, tmp_path)
    settings = (f"data.root={run / 'images'}", "name=smaller", "data.val_fraction=0.25", "methods=[scratch]")
    assert call_main(run, "--phase", "all", *SHORT, *settings).returncode == 0
    code, out, _ = evaluate("--compare", run / "tiny", run / "smaller", "--json")
    told = json.loads(out)
    assert code == 0 and told["notes"] == []
    assert {pair["b"].partition(":")[0] for pair in told["pairs"]} == {"smaller"}
