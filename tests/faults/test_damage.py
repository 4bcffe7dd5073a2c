"""Bits flipped, files cut short or gone: named, or made anew, and never another result."""

from __future__ import annotations

import io
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import errors
from diagnostics.evaluation import recording_file
from diagnostics.evaluation.evaluated_models import record, subjects_of_run
from errors import UserError
from models.checkpoint import load, load_newest, previous_of, save_and_keep
from tests.diagnostics.report.test_folder import recordings, usual
from tests.faults.short_run import JOBS, SHORT
from training.run.environment import read_environment
from training.run.identity import check_identity
from training.run.run_folder import RunFolder

FILES = (
    *(f"{job}/{name}" for job in JOBS for name in ("model.pt", "result.json", "metrics.jsonl")),
    "seed0/two_stage/stage1/projections.pt",
    "identity.json",
    "environment.json",
    "config.yaml",
)


@pytest.fixture(autouse=True)
def each_word_is_said_again():
    errors.warn.cache_clear()


def damage(path, kind, rng):
    """Flip a bit of a file, cut it short, or empty it."""
    content = bytearray(path.read_bytes())
    if kind == "flipped":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content[: {"flipped": len(content), "cut": rng.randrange(len(content)), "empty": 0}[kind]])


@pytest.mark.parametrize("name", FILES)
def test_damage_in_any_file_of_a_finished_run_is_found_or_harmless(
    copied, make_experiment, monkeypatch, name, capsys
):
    experiment = make_experiment(*SHORT, runs=copied.parent)
    monkeypatch.setattr("diagnostics.evaluation.evaluated_models.describe_trainings", lambda experiment, job: None)

    def all_that_is_read():
        folder = RunFolder(copied)
        config = folder.config()
        check_identity(copied, experiment.data)
        subjects = subjects_of_run(experiment)
        told = [(one.name, one.weights_hash, one.history, one.stage1) for one in subjects]
        projections = [str(one.projections) for one in subjects]
        results = [folder.job(job).result() for job in folder.present()]
        return config, told, projections, results, read_environment(copied)

    whole, rng, path = all_that_is_read(), random.Random(name), copied / name
    content, found = path.read_bytes(), 0
    for kind in ("cut", "empty", *["flipped"] * 8):
        damage(path, kind, rng)
        try:
            now = all_that_is_read()
            warned = capsys.readouterr().err
            assert now == whole or (now == (*whole[:-1], None) and name in warned)
            found += "warning" in warned
        except UserError as error:
            found += 1
            assert path.name in str(error) and "\n" not in str(error)
        path.write_bytes(content)
        errors.warn.cache_clear()
    assert found >= 5
    path.unlink()
    if name == "environment.json":
        assert all_that_is_read()[:-1] == whole[:-1]
    else:
        with pytest.raises(UserError, match=path.name):
            all_that_is_read()


def test_the_older_checkpoint_serves_when_the_newer_is_damaged(tmp_path, capsys):
    path, rng = tmp_path / "checkpoint.pt", random.Random(0)
    for epoch in (1, 2, 3):
        save_and_keep(path, {"epoch": epoch, "x": torch.full((3,), float(epoch))})
    assert load(previous_of(path))["epoch"] == 2 and load_newest(path)[0]["epoch"] == 3
    content = path.read_bytes()
    for kind in ("cut", "empty", *["flipped"] * 30):
        damage(path, kind, rng)
        errors.warn.cache_clear()
        state, found = load_newest(path)
        assert state["x"].tolist() == [state["epoch"]] * 3
        said = capsys.readouterr().err
        assert (state["epoch"], found) in ((3, path), (2, previous_of(path)))
        assert said.count("\n") == (state["epoch"] == 2) and (not said or "checkpoint.pt" in said)
        path.write_bytes(content)
    path.unlink()
    assert load_newest(path)[0]["epoch"] == 2
    previous_of(path).write_bytes(b"")
    path.write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"checkpoint\.previous\.pt"):
        load_newest(path)


def test_a_file_system_without_hard_links_keeps_two_checkpoints_as_well(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    for epoch in (1, 2):
        save_and_keep(tmp_path / "checkpoint.pt", {"epoch": epoch})
    assert [load(path)["epoch"] for path in sorted(tmp_path.iterdir())] == [1, 2]


def test_a_damaged_recording_is_made_again_with_a_word(copied, make_experiment, capsys):
    experiment = make_experiment(*SHORT, runs=copied.parent)
    subjects = [one for one in subjects_of_run(experiment) if one.method == "scratch"]
    subjects = [type(one)(**{**vars(one), "detailed": False}) for one in subjects]
    first = record(experiment, subjects, copied / "eval")
    damage(copied / "eval" / "predictions.npz", "cut", random.Random(1))
    again = record(experiment, subjects, copied / "eval")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "predictions.npz" in said and "recorded anew" in said
    assert np.array_equal(first.models[0].logits, again.models[0].logits)
    assert recording_file.read(copied / "eval" / "predictions.npz").labels.tolist() == first.labels.tolist()


def test_a_flipped_bit_in_predictions_is_found_or_harmless(tmp_path):
    path, rng, file = tmp_path / "predictions.npz", random.Random(2), io.BytesIO()
    recording_file.write(recordings(usual()[:2]), file)
    path.write_bytes(file.getvalue())
    whole, refused = recording_file.read(path), 0
    for _ in range(200):
        damage(path, "flipped", rng)
        try:
            found = recording_file.read(path)
        except ValueError as error:
            assert "predictions.npz" in str(error)
            refused += 1
        else:
            assert asdict(found.context) == asdict(whole.context)
            assert all(np.array_equal(a.logits, b.logits) for a, b in zip(found.models, whole.models, strict=True))
        path.write_bytes(file.getvalue())
    assert refused > 160  # the rest are times and the like, which nothing reads


@pytest.mark.parametrize(
    ("without", "named"),
    [({"name": 3}, "name"), ({"data": {}}, "data.source"), ({"shortcut": 1}, "section shortcut")],
)
def test_a_recording_whose_config_lacks_what_is_reported_is_refused(tmp_path, without, named):
    whole, file = recordings(usual()[:2]), io.BytesIO()
    context = replace(whole.context, config={**whole.context.config, **without})
    recording_file.write(replace(whole, context=context), file)
    (tmp_path / "predictions.npz").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=f"predictions.npz.*its config has no {named}"):
        recording_file.read(tmp_path / "predictions.npz")


def test_training_goes_on_from_the_older_checkpoint_to_the_same_bits(call_main, tmp_path):
    long = ("--phase", "teacher", "--quiet", "--set", *SHORT, "teacher.epochs=4")
    runs = tmp_path
    stopped = runs / "tiny" / "teacher"
    assert call_main(runs, *long).returncode == 0
    whole = (stopped / "model.pt").read_bytes(), (stopped / "metrics.jsonl").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.run.job_folder.JobFolder.finish", lambda *arguments: None)
        assert call_main(runs, *long, "--fresh").returncode != 0
    damage(stopped / "checkpoint.pt", "cut", random.Random(3))
    (stopped / "metrics.jsonl").write_text("{", encoding="utf-8")
    assert "is unfinished" in call_main(runs, *long).stderr
    done = call_main(runs, *long, "--resume")
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and "going on from the one before" in done.stderr
    assert whole == ((stopped / "model.pt").read_bytes(), (stopped / "metrics.jsonl").read_bytes())
    assert not list(stopped.glob("checkpoint*"))
