"""A full disk at kinds of write that test_disk.py does not have, at one size; full_disk.py does all at eight."""

from __future__ import annotations

import pytest

from tests.faults.full_disk import KINDS, mounted, table, tmpfs_table

SOME = ("decoded images, meta", "metrics.jsonl", "timing.jsonl", "events.*", "result.json", "config.yaml")


def test_a_write_without_room_is_one_line_and_goes_on_with_room(tmp_path, capsys):
    rows = table(tmp_path, [kind for kind in KINDS if kind.name in SOME], shares=(4,))
    assert len(rows) == len(SOME)
    for row in rows:
        assert (row.refused, row.resumed, row.problems) == (1, 1, []), row
    assert capsys.readouterr().out.count("one line, exit code 1: 1/1") == len(SOME)


def test_a_file_system_that_is_too_small(tmp_path, capsys):
    try:
        with mounted(tmp_path / "try", 8):
            pass
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    assert tmpfs_table(tmp_path, sizes=(400,)) == []
    assert "exit code 1" in capsys.readouterr().out
