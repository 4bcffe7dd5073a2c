"""Of tests/faults/soak.py and tests/faults/commands.py: kills, and locks that dead processes leave."""

from __future__ import annotations

import json
import random

from files import LockOwner, hold_lock, remove_abandoned_lock
from tests.faults.harness import Workspace
from tests.faults.soak import Soaked, find_differences, soak


def test_kills_change_nothing_and_leave_nothing(tmp_path, capsys) -> None:
    assert soak("run", tmp_path, 2, random.Random(1), short=True) == []
    assert capsys.readouterr().out.startswith("run: 2 kills in ")
    whole, killed = (Soaked(Workspace(tmp_path / name), "run", short=True) for name in ("run", "run0"))
    results = whole.read_results()
    assert len([name for name in results if name.startswith("cache")]) == 3 + 2 * 2  # decoded images, views
    assert len([name for name in results if name.endswith(("model.pt", "metrics.jsonl", "result.json"))]) == 3 * 4
    next(killed.workspace.run.rglob("model.pt")).write_bytes(b"other")
    next(killed.workspace.cache.rglob("view0.npy")).write_bytes(b"other")
    (killed.workspace.run / "x.partial").write_bytes(b"")
    assert len(find_differences(whole, killed)) == 4  # a leftover is in the one and not in the other too


def test_dead_locks_are_removed_and_live_ones_stay(tmp_path) -> None:
    path = tmp_path / "view0.lock"
    path.write_text(
        json.dumps({"host": LockOwner.from_this_process().host, "process": 999999999}), encoding="utf-8"
    )
    remove_abandoned_lock(path)
    assert not path.exists()
    with hold_lock(path):
        remove_abandoned_lock(path)
        assert path.exists()
