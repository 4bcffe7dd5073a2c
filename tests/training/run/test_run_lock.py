from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from errors import UserError
from training.run.run_lock import has_files, lock_run


def test_the_lock_exists_only_while_a_run_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    with lock_run(folder):
        assert json.loads((folder / ".lock").read_text())["host"] == socket.gethostname()
        assert not has_files(folder)
        (folder / "config.yaml").touch()
        assert has_files(folder)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with lock_run(tmp_path):
        with (
            pytest.raises(UserError, match=r"is in use by process \d+ on .*: wait for it or stop it"),
            lock_run(tmp_path),
        ):
            pytest.fail("two write in one folder")
        assert (tmp_path / ".lock").exists()


def test_another_machines_lock_is_refused_with_its_file(tmp_path: Path) -> None:
    left = {"host": "elsewhere", "process": 7, "boot": "x", "since": "then"}
    (tmp_path / ".lock").write_text(json.dumps(left))
    with (
        pytest.raises(UserError, match=rf"process 7 on elsewhere.*remove {tmp_path / '.lock'}"),
        lock_run(tmp_path),
    ):
        pytest.fail("it is held")
    assert json.loads((tmp_path / ".lock").read_text()) == left


def test_a_refusal_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no"), lock_run(tmp_path / "a"):
        raise UserError("no")
    assert list(tmp_path.iterdir()) == []
