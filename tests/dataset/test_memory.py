from __future__ import annotations

import pytest

from dataset import memory
from dataset.memory import machine_memory, see_that_it_fits
from dataset.sources import load_source
from errors import UserError
from settings.images import Data


def test_what_the_machine_has_is_the_least_that_is_known(monkeypatch, tmp_path):
    has = machine_memory()
    assert has is not None and 10**8 < has < 10**14
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("1000000\n")
    assert machine_memory() == 1000000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory() >= has


def test_both_figures_are_in_the_line():
    see_that_it_fits("a=1", "things", 10**12, None)
    see_that_it_fits("a=1", "things", 10**9, 10**9)
    with pytest.raises(
        UserError, match="a=1: things take about 2.5 GB of memory, this machine has 1.0 GB: choose"
    ):
        see_that_it_fits("a=1", "things", 25 * 10**8, 10**9)


def test_images_are_compared_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 1797 * 3 * 64**2)
    load_source(Data(image_size=64))
    with pytest.raises(UserError, match="data.image_size=65: 1,797 decoded images take about 0.0 GB"):
        load_source(Data(image_size=65))


def test_what_is_free_is_the_least_that_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "memory.max")
    assert memory.free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:       24 kB\nMemAvailable:       20 kB\n")
    assert memory.free_memory() == 20 * 1024
    (tmp_path / "memory.max").write_text("10000\n")
    (tmp_path / "memory.current").write_text("7000\n")
    (tmp_path / "memory.stat").write_text("anon 5000\nfile 1500\n")  # files' 1,500 can be dropped
    assert memory.free_memory() == 10000 - 7000 + 1500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory() == 20 * 1024
