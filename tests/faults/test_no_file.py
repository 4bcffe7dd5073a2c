"""What is no plain file stands where a file belongs: a line, and nobody waits for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataset.files.decoded_cache import read_cache
from errors import UserError
from files import locked
from models.whole import find_damaged_entry
from training.run.record_file import read_record
from training.run.run_lock import writing_in

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def test_a_pipe_in_place_of_a_record_is_named(tmp_path):
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(UserError, match=r"result\.json is no file: put it back"):
        read_record(tmp_path / "result.json", "put it back")


def test_a_pipe_in_place_of_an_archive_is_damage(tmp_path):
    os.mkfifo(tmp_path / "predictions.npz")
    assert find_damaged_entry(tmp_path / "predictions.npz") == "the file itself, which is none"


def test_a_pipe_in_a_cache_has_it_made_anew(tmp_path, capsys):
    (tmp_path / "cache").mkdir()
    os.mkfifo(tmp_path / "cache" / "meta.json")
    assert read_cache(tmp_path / "cache") is None
    assert "meta.json is no file" in capsys.readouterr().err


def test_a_pipe_or_a_link_in_place_of_a_lock_is_refused_and_its_target_kept(tmp_path):
    os.mkfifo(tmp_path / "pipe.lock")
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link.lock").symlink_to(tmp_path / "target")
    for name in ("pipe.lock", "link.lock"):
        with pytest.raises(UserError, match="where a lock belongs: remove it"), locked(tmp_path / name):
            pass
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
def test_a_folder_that_cannot_be_made_is_named(tmp_path):

    with (
        pytest.raises(UserError, match="no folder can be made there|name a folder"),
        writing_in(Path("/proc/x/run")),
    ):
        pass
