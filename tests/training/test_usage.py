from __future__ import annotations

import gc
import json

import pytest
import torch

from training.usage import EpochUsage, PeakMemory, Usage, read_usage


def make_line(epoch: int, speed: float = 100.0, seconds: float = 2.0, peak: int = 5) -> str:
    return EpochUsage(epoch, speed, seconds, peak, "process").to_line()


def test_a_training_sums_its_epochs(tmp_path) -> None:
    path = tmp_path / "timing.jsonl"
    path.write_text(make_line(1, speed=100, peak=7) + make_line(2, speed=50), encoding="utf-8")
    assert read_usage(path, 2) == Usage(4.0, pytest.approx(2 / (1 / 100 + 1 / 50)), 7, "process")
    assert json.loads(make_line(3))["epoch"] == 3


def test_an_epoch_run_again_counts_once(tmp_path) -> None:
    path = tmp_path / "timing.jsonl"
    path.write_text(make_line(1, seconds=9) + make_line(1, seconds=1) + make_line(2, seconds=3), encoding="utf-8")
    assert read_usage(path, 2).seconds == 4.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        make_line(1),
        make_line(2),
        make_line(1) + '{"epoch": 2',
        make_line(1) + "[2]\n" + make_line(3),
        make_line(1) + make_line(2).replace("5", "true"),
        make_line(1) + make_line(2, speed=0),
        "\0",
    ],
)
def test_a_missing_epoch_gives_no_usage(tmp_path, text) -> None:
    path = tmp_path / "timing.jsonl"
    path.write_text(text, encoding="utf-8")
    assert read_usage(path, 2) == Usage() == read_usage(tmp_path / "none", 2)


def test_peak_memory_includes_released_memory(hold_for_a_moment) -> None:
    gc.collect()  # what other tests left would otherwise go in the middle of it
    peak = PeakMemory(torch.device("cpu"))
    before = peak.read()
    hold_for_a_moment(160_000_000)
    assert 120e6 < peak.read() - before < 400e6 or peak.of != "process"
