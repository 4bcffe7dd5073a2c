from __future__ import annotations

import os

import pytest

from dataset.files.cache_folder import gone_if_empty, see_that_it_can_be_written
from errors import UserError


def test_a_folder_that_is_there_or_can_be_made_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "a" / "b", tmp_path.relative_to(tmp_path) / "new"):
        see_that_it_can_be_written(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_folder_or_cannot_be_written_in_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "file/below", "loop", "loop/below", "x" * 300):
        with pytest.raises(UserError, match=rf"data\.cache_dir {tmp_path / name}: .*: name another"):
            see_that_it_can_be_written(tmp_path / name)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for another person, or where it is read-only
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written in: name another folder"):
        see_that_it_can_be_written(tmp_path / "new")


def test_folders_that_were_made_for_nothing_go_again(tmp_path):
    (tmp_path / "kept").mkdir()
    for folder in (tmp_path / "kept", tmp_path / "kept" / "a" / "b"):
        with pytest.raises(UserError), gone_if_empty(folder):
            folder.mkdir(parents=True, exist_ok=True)
            raise UserError("no images")
        assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]
    with pytest.raises(UserError), gone_if_empty(tmp_path / "c" / "d"):
        (tmp_path / "c" / "d").mkdir(parents=True)
        (tmp_path / "c" / "file").touch()
        raise UserError("no images")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c", "file", "kept"]
