from __future__ import annotations

import gc
import json

import pytest
import torch

from training.run.usage import EpochUsage, PeakMemory, Usage, read_usage


def line(epoch: int, speed: float = 100.0, seconds: float = 2.0, peak: int = 5) -> str:
    return EpochUsage(speed, seconds, peak, "process").line(epoch)


def test_a_training_is_the_sum_of_its_epochs(tmp_path):
    path = tmp_path / "timing.jsonl"
    path.write_text(line(1, speed=100, peak=7) + line(2, speed=50), encoding="utf-8")
    assert read_usage(path, 2) == Usage(4.0, pytest.approx(2 / (1 / 100 + 1 / 50)), 7, "process")
    assert json.loads(line(3))["epoch"] == 3


def test_an_epoch_that_was_run_again_counts_once(tmp_path):
    path = tmp_path / "timing.jsonl"
    path.write_text(line(1, seconds=9) + line(1, seconds=1) + line(2, seconds=3), encoding="utf-8")
    assert read_usage(path, 2).seconds == 4.0


@pytest.mark.parametrize(
    "text", ["", line(1), line(2), line(1) + '{"epoch": 2', line(1) + "[2]\n" + line(3), "\0"]
)
def test_an_epoch_that_is_not_on_record_leaves_the_training_untold(tmp_path, text):
    path = tmp_path / "timing.jsonl"
    path.write_text(text, encoding="utf-8")
    assert read_usage(path, 2) == Usage() == read_usage(tmp_path / "none", 2)


def test_what_earlier_versions_wrote_has_images_per_second_alone(tmp_path):
    path = tmp_path / "timing.jsonl"
    path.write_text('{"epoch": 1, "images_per_second": 40.0}\n', encoding="utf-8")
    assert read_usage(path, 1) == Usage(None, pytest.approx(40.0), None, None)
    path.write_text('{"epoch": 1, "images_per_second": true, "peak_memory": "much"}\n', encoding="utf-8")
    assert read_usage(path, 1) == Usage()


def test_the_peak_holds_what_was_there_and_is_gone(hold_for_a_moment):
    gc.collect()  # what other tests left would otherwise go in the middle of it
    peak = PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    hold_for_a_moment(160_000_000)
    assert 120e6 < peak.bytes() - before < 400e6 or peak.of != "process"
