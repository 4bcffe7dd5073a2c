"""Bits flipped and files cut, emptied or removed: named or repaired, and never another result.

FLIPS=200 tries more bits of each kind of file.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dataset.sources import load_source
from diagnostics.evaluation import recording_file
from diagnostics.evaluation.evaluated_models import list_run_models
from diagnostics.evaluation.saved_evaluation import read_evaluation
from diagnostics.plain import to_plain
from diagnostics.shortcut import cue_recording_file as cue_file
from errors import MachineError, UserError, warn
from files import hold_lock
from models.checkpoint import get_previous_path, hash_weights, load, load_newest, load_weights, save, save_and_keep
from tests.faults.harness import (
    LONG,
    Workspace,
    capture_warnings,
    damage_file,
    evaluate,
    restore_snapshot,
    take_snapshot,
)
from training.experiment import Experiment
from training.run.environment import read_environment
from training.run.identity import check_identity, write_identity
from training.run.run_folder import RunFolder

FLIPS = int(os.environ.get("FLIPS", "1"))
Reader = Callable[[Workspace], Any]


def read_run(workspace: Workspace) -> Any:
    """Read all that a report is made from."""
    experiment, folder = workspace.open_experiment(), RunFolder(workspace.run)
    check_identity(folder.path, experiment.data)
    subjects = list_run_models(experiment)
    read = [(one.name, one.history, one.stage1, hash_weights(one.build())) for one in subjects]
    projections = [str(one.projections) for one in subjects]
    results = [folder.get_job(job).read_result() for job in folder.list_present_jobs()]
    return folder.read_config(), read, projections, results


def load_given_weights(workspace: Workspace) -> Any:
    network = workspace.open_experiment().build_student(0)
    load_weights(network, workspace.run / "teacher" / "model.pt", "resnet8")
    return hash_weights(network)


def run_resumed(workspace: Workspace) -> Any:
    return read_results(workspace, ["runs/long/teacher"], *LONG, "--resume")


def train_first_stage(workspace: Workspace) -> Any:
    (views,) = workspace.cache.glob("teacher-*")
    for view in views.glob("view*.npy"):
        os.utime(view)  # this process reads only views again that have changed
    folders = ["runs/small/seed0/two_stage/stage1", str(views.relative_to(workspace.folder))]
    return read_results(workspace, folders, "--phase", "crd", "--fresh")


def read_results(workspace: Workspace, folders: list[str], *words: str) -> Any:
    """Run main.py and read what it made."""
    done = workspace.train(*words)
    if done.code == 2:
        done.check_line()
        raise UserError(done.err)
    assert done.code == 0, done
    if done.err:
        warn(done.err.removeprefix("warning: "))
    names = ("view*.npy", "model.pt", "metrics.jsonl", "result.json")
    paths = [path for folder in folders for name in names for path in (workspace.folder / folder).glob(name)]
    return {path: path.read_bytes() for path in paths}


def load_images(workspace: Workspace) -> Any:
    source = load_source(workspace.open_experiment().config.data)
    return source.identity, source.classes, sorted(path.name for path in workspace.cache.glob("folder-*/*"))


def read_predictions(workspace: Workspace) -> Any:
    try:
        found = recording_file.read_recording(workspace.run / "eval" / "predictions.npz")
    except ValueError as error:
        raise UserError(str(error)) from None
    arrays = [array.tobytes() for model in found.models for array in (model.logits, model.last, model.layers)]
    return to_plain(found.context), [to_plain(model.meta) for model in found.models], arrays


def read_cues(workspace: Workspace) -> Any:
    found = cue_file.read_cue_recording(next(workspace.runs.glob("study/**/cues.*")).parent)
    names = ("labels", "cues", "classes_cue", "predictions", "clean")
    arrays = [getattr(found, name).tobytes() for name in names]
    return to_plain(found.about), to_plain(found.models), arrays


def open_with_cues(workspace: Workspace) -> Experiment:
    return workspace.open_experiment("shortcut.cue=file", f"shortcut.file={workspace.folder / 'cues/cues.csv'}")


def read_cue_table(workspace: Workspace) -> Any:
    data = open_with_cues(workspace).data
    check_identity(workspace.folder / "cues", data)
    return data.fingerprint


def take_lock(workspace: Workspace) -> Any:
    with hold_lock(workspace.run / ".lock", strict=True) as other:
        if other is not None:
            raise UserError(f"in use by {other}")
    return True


KINDS: dict[str, tuple[str, Reader]] = {
    "model.pt": ("runs/small/**/model.pt", read_run),
    "result.json": ("runs/small/**/result.json", read_run),
    "metrics.jsonl": ("runs/small/**/metrics.jsonl", read_run),
    "projections.pt": ("runs/small/**/projections.pt", read_run),
    "config.yaml": ("runs/small/config.yaml", read_run),
    "identity.json": ("runs/small/identity.json", read_run),
    "environment.json": ("runs/small/environment.json", lambda workspace: read_environment(workspace.run)),
    "images": ("images/train/*/*.png", read_run),
    "given weights": ("runs/small/teacher/model.pt", load_given_weights),
    "checkpoint.pt": ("runs/long/teacher/checkpoint.pt", run_resumed),
    "checkpoint.previous.pt": ("runs/long/teacher/checkpoint.previous.pt", run_resumed),
    "decoded images": ("cache/folder-*/*.npy", load_images),
    "decoded images, meta": ("cache/folder-*/meta.json", load_images),
    "teacher's outputs": ("cache/teacher-*/view0.npy", train_first_stage),
    "predictions.npz": ("runs/small/eval/predictions.npz", read_predictions),
    "cues.npz": ("runs/study/**/cues.npz", read_cues),
    "cues.json": ("runs/study/**/cues.json", read_cues),
    "CSV of cues": ("cues/cues.csv", read_cue_table),
    ".lock": ("runs/small/.lock", take_lock),
}
HARMLESS = ("checkpoint.previous.pt", ".lock")


@pytest.fixture
def before(workspace):
    """Add a table of cues and the lock of a dead process, and read all files."""
    images, cues = workspace.folder / "images", workspace.folder / "cues"
    names = [path.relative_to(images) for path in sorted(images.rglob("*.png"))]
    rows = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    cues.mkdir(exist_ok=True)
    (cues / "cues.csv").write_text("\n".join(["file,cue", *rows]) + "\n", encoding="utf-8")
    write_identity(cues, open_with_cues(workspace).data)
    with hold_lock(workspace.run / ".lock"):
        content = (workspace.run / ".lock").read_bytes()
    (workspace.run / ".lock").write_bytes(content)
    return take_snapshot(workspace.folder)


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_named_or_harmless(workspace, before, name) -> None:
    (pattern, read), draw, found = KINDS[name], random.Random(name), 0
    whole = read(workspace)
    for kind in ("cut", "gone", *["flip"] * FLIPS):
        restore_snapshot(workspace.folder, before)
        damage_file(draw.choice(sorted(workspace.folder.glob(pattern))), kind, draw)
        with capture_warnings() as printed:
            try:
                now = read(workspace)
            except (UserError, MachineError) as error:
                assert len(str(error)) > 10 and "\n" not in str(error)
                found += 1
                continue
        assert now == whole or (name == "environment.json" and now is None)  # left out of the report
        found += "warning: " in printed.getvalue()
    assert found >= (0 if name in HARMLESS else 1)


def test_damaged_recording_is_made_again(workspace) -> None:
    recorded = workspace.run / "eval" / "predictions.npz"
    whole = read_predictions(workspace)
    damage_file(recorded, "cut", random.Random(1))
    done = evaluate(str(workspace.run))
    assert done.code == 0 and done.err.count("\n") == 1
    assert "predictions.npz" in done.err and "recorded again" in done.err
    assert read_predictions(workspace)[2] == whole[2]


@pytest.mark.parametrize("name", ["report.json", "report.sha256"])
def test_changed_report_is_made_again(workspace, name) -> None:
    path, shown = workspace.run / "eval" / name, read_evaluation(workspace.run)
    before = path.read_bytes()
    path.write_bytes(before.replace(b"1", b"3", 1) if b"1" in before else b"0")
    with pytest.raises(ValueError, match="report.json is not as it was written"):
        read_evaluation(workspace.run)
    shutil.copytree(workspace.run, workspace.runs / "other")
    assert evaluate("--compare", str(workspace.run), str(workspace.runs / "other")).code == 0
    assert path.read_bytes() == before and read_evaluation(workspace.run).report == shown.report


@pytest.mark.parametrize("name", ["teacher/model.pt", "teacher/metrics.jsonl"])
def test_pipe_in_place_of_a_file_is_refused(workspace, name) -> None:
    (workspace.run / name).unlink()
    os.mkfifo(workspace.run / name)
    evaluate(str(workspace.run)).check_line(f"{name} is no file")


def test_features_beyond_float16_are_reported(workspace, tmp_path) -> None:
    weights = load(workspace.run / "teacher" / "model.pt")
    for name in [
        one for one in weights if one.startswith(("layer3.0.bn2.weight", "layer3.0.bn2.bias", "fc.weight"))
    ]:
        weights[name] = weights[name] * (1e6 if "bn2" in name else 1e-6)
    save(tmp_path / "big.pt", weights)
    files = ("--teacher", tmp_path / "big.pt", "--student", workspace.run / "teacher" / "model.pt")
    given = ("--config", workspace.config, "--output-dir", tmp_path)
    done = evaluate(*map(str, (*files, *given)))
    assert done.code == 0, done
    (path,) = tmp_path.glob("eval-*/predictions.npz")
    last = recording_file.read_recording(path).models[0].last
    assert np.isfinite(last).all() and last.max() > 65_504


def test_older_checkpoint_replaces_a_damaged_one(tmp_path) -> None:
    path, previous = tmp_path / "checkpoint.pt", get_previous_path(tmp_path / "checkpoint.pt")
    for epoch in (1, 2, 3):
        save_and_keep(path, {"epoch": epoch})
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with capture_warnings() as printed:
        assert load_newest(path) == ({"epoch": 2}, previous)
    assert printed.getvalue().count("\n") == 1 and "checkpoint.pt" in printed.getvalue()
    previous.write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint\.previous\.pt"):
        load_newest(path)


def test_two_checkpoints_are_kept_without_hard_links(tmp_path, monkeypatch) -> None:
    def refuse(*paths):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    for epoch in (1, 2):
        save_and_keep(tmp_path / "checkpoint.pt", {"epoch": epoch})
    assert [load(path)["epoch"] for path in sorted(tmp_path.iterdir())] == [1, 2]
