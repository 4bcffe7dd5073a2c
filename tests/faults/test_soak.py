from __future__ import annotations

from tests.faults.soak import Place, differences, soak


def test_two_kills_leave_nothing_behind_and_change_nothing(tmp_path, capsys):
    assert soak(tmp_path, kills=2, seed=1) == []
    assert "2 kills" in capsys.readouterr().out
    whole, killed = Place(tmp_path / "whole"), Place(tmp_path / "killed0")
    assert len(whole.files()) >= 5 * 3
    (next((tmp_path / "killed0" / "runs").rglob("model.pt"))).write_bytes(b"other")
    (tmp_path / "killed0" / "runs" / "x.partial").write_bytes(b"")
    assert len(differences(whole, killed)) == 2
