from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from errors import UserError
from training.run.run_lock import is_claimed, writing_in


def test_the_lock_is_there_while_a_run_is_written_and_no_file_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    with writing_in(folder):
        assert json.loads((folder / ".lock").read_text())["host"] == socket.gethostname()
        assert not is_claimed(folder)
        (folder / "config.yaml").touch()
        assert is_claimed(folder)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_a_second_writer_is_refused_and_the_first_keeps_the_lock(tmp_path: Path) -> None:
    with writing_in(tmp_path):
        with (
            pytest.raises(UserError, match=r"is in use by process \d+ on .*: wait for it or stop it"),
            writing_in(tmp_path),
        ):
            pytest.fail("two write in one folder")
        assert (tmp_path / ".lock").exists()


def test_one_of_another_machine_is_refused_with_the_way_to_remove_it(tmp_path: Path) -> None:
    left = {"host": "elsewhere", "process": 7, "boot": "x", "since": "then"}
    (tmp_path / ".lock").write_text(json.dumps(left))
    with (
        pytest.raises(UserError, match=rf"process 7 on elsewhere.*remove {tmp_path / '.lock'}"),
        writing_in(tmp_path),
    ):
        pytest.fail("it is held")
    assert json.loads((tmp_path / ".lock").read_text()) == left


def test_a_refusal_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no"), writing_in(tmp_path / "a"):
        raise UserError("no")
    assert list(tmp_path.iterdir()) == []
