from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from diagnostics.writable import check_export_folder, check_folder, check_report_folder
from errors import MachineError, UserError


@pytest.mark.parametrize(
    ("file", "folder", "words"),
    [
        ("eval", "", "eval is in the way and no folder"),
        ("eval/tables", "", "tables is in the way and no folder"),
        ("", "eval/predictions.npz", "predictions.npz is in the way and no file"),
    ],
)
def test_what_is_in_the_way_of_a_report_is_named(tmp_path, file, folder, words) -> None:
    if file:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    if folder:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=words):
        check_report_folder(tmp_path / "eval")


@pytest.mark.parametrize("kind", [OSError(errno.EROFS, "Read-only"), OSError(errno.ENOSPC, "full")])
def test_a_disk_that_refuses_is_one_line(tmp_path, monkeypatch, kind) -> None:
    def refuse(dir: Path) -> None:
        raise kind

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises((UserError, MachineError), match=r"eval cannot be written"):
        check_report_folder(tmp_path / "eval")


def test_a_lock_that_is_none_refuses_an_export(tmp_path) -> None:
    (tmp_path / "out.partial.lock").mkdir()
    with pytest.raises(UserError, match=r"out.partial.lock is in the way"):
        check_export_folder(tmp_path / "out")


def test_a_check_leaves_nothing(tmp_path) -> None:
    for check in (check_folder, check_report_folder, check_export_folder):
        check(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
