"""Of tests/faults/soak.py, place.py and commands.py."""

from __future__ import annotations

import json
import random

import pytest

from files import Holder, locked, remove_lock_left_behind
from tests.faults.place import Place
from tests.faults.soak import differences, soak_one
from training.run.job_folder import JobFolder


def test_kills_leave_nothing_behind_and_change_nothing(tmp_path, capsys):
    assert soak_one("run", tmp_path, 2, random.Random(1), short=True) == []
    out = capsys.readouterr().out
    assert out.startswith("run: 2 kills in ") and out.endswith(" s: identical\n")
    whole, killed = (
        Place(tmp_path / f"run-{name}", tmp_path / "images", short=True) for name in ("whole", "killed0")
    )
    files = whole.files()
    assert len([name for name in files if name.startswith("cache")]) == 3 + 2 * 2  # decoded images, views
    assert len([name for name in files if name.endswith(("model.pt", "metrics.jsonl", "result.json"))]) == 3 * 4
    next(killed.root.rglob("model.pt")).write_bytes(b"other")
    next((killed.folder / "cache").rglob("view0.npy")).write_bytes(b"other")
    (killed.root / "x.partial").write_bytes(b"")
    (killed.folder / "cache" / "view0.lock").write_bytes(b"")
    assert len(differences(whole, killed)) == 4


def test_what_a_kill_met_is_told_from_the_files(tmp_path):
    place = Place(tmp_path, tmp_path / "images")
    assert place.met() == "decoding"
    decoded, views = tmp_path / "cache" / "folder-0123456789abcdef", tmp_path / "cache" / "teacher-0"
    jobs = [place.root / "teacher", place.root / "seed0/two_stage/stage1"]
    for folder in (decoded, views, *jobs):
        folder.mkdir(parents=True)
    (decoded / "meta.json").touch()
    assert place.met() == "between jobs"
    for folder in jobs:
        (folder / "checkpoint.pt").touch()
    assert place.met() == "teacher"
    (place.root / "teacher" / "result.json").touch()
    assert place.met() == "two_stage stage 1"
    (views / "view0.partial").touch()
    assert place.met() == "caching"
    (tmp_path / "main.ended").touch()
    assert place.met() == "report"


def test_a_job_that_was_killed_as_it_ended_loses_its_checkpoints(copied):
    # before, a kill between result.json and the checkpoint's removal left it for ever
    job = JobFolder(copied / "teacher")
    job.checkpoint.write_bytes(b"")
    (job.path / "checkpoint.previous.pt").write_bytes(b"")
    job.drop_checkpoints()
    assert list(job.path.glob("checkpoint*")) == [] and job.finished


@pytest.mark.parametrize("alive", [False, True])
def test_the_lock_of_a_dead_process_goes_and_that_of_a_living_one_stays(tmp_path, alive):
    path = tmp_path / "view0.lock"
    if not alive:
        path.write_text(json.dumps({"host": Holder.this().host, "process": 999999999}), encoding="utf-8")
        remove_lock_left_behind(path)
        assert not path.exists()
        return
    with locked(path):
        remove_lock_left_behind(path)
        assert path.exists()
