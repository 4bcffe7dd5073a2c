from __future__ import annotations

import os

import pytest

from dataset import memory
from dataset.memory import check_fits, check_writable, find_machine_memory
from dataset.sources import load_source
from errors import UserError
from settings.images import Data


def test_machine_memory_is_the_least_known(monkeypatch, tmp_path) -> None:
    has = find_machine_memory()
    assert has is not None and 10**8 < has < 10**14
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("1000000\n")
    assert find_machine_memory() == 1000000
    (tmp_path / "memory.max").write_text("max\n")
    assert find_machine_memory() >= has


def test_free_memory_is_the_least_known(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "memory.max")
    assert memory.find_free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:       24 kB\nMemAvailable:       20 kB\n")
    assert memory.find_free_memory() == 20 * 1024
    (tmp_path / "memory.max").write_text("10000\n")
    (tmp_path / "memory.current").write_text("7000\n")
    (tmp_path / "memory.stat").write_text("anon 5000\nfile 1500\n")  # files' 1,500 can be dropped
    assert memory.find_free_memory() == 10000 - 7000 + 1500


def test_the_message_has_both_sizes() -> None:
    check_fits("a=1", "things", 10**12, None)
    check_fits("a=1", "things", 10**9, 10**9)
    with pytest.raises(UserError, match="a=1: things take about 2.5 GB of memory, this machine has 1.0 GB"):
        check_fits("a=1", "things", 25 * 10**8, 10**9)


def test_images_too_large_for_memory_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(memory, "find_machine_memory", lambda: 1797 * 3 * 16**2)
    load_source(Data(image_size=16))
    with pytest.raises(UserError, match="data.image_size=17: 1,797 decoded images take about 0.0 GB"):
        load_source(Data(image_size=17))


def test_a_folder_that_can_be_made_is_accepted(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "a" / "b", tmp_path.relative_to(tmp_path) / "new"):
        check_writable(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "loop", "loop/below"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, name) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=rf"data\.cache_dir {tmp_path / name}: .* is not a folder: name another"):
        check_writable(tmp_path / name)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for another person, or where it is read-only
    with pytest.raises(UserError, match=f"no permission to write in {tmp_path}: name another folder"):
        check_writable(tmp_path / "new")
