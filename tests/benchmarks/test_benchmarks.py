"""Of benchmarks/: each part runs at a small size, and what is timed computes what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import epoch, input, on_gpu, reference, setting, step, timing
from benchmarks.timing import Timing, format_table, measure_in_turn, run_parts

SMALL = (
    "teacher.arch=resnet8",
    "student.arch=resnet8",
    "losses.crd.num_negatives=32",
    "losses.crd.dim=8",
    "training.batch_size=16",
    "training.epochs=4",
    "methods.two_stage.stage2.epochs=2",
    "precision=float32",
)
SIZES = {
    step: {"B": 8, "N": 400, "K": 64, "D": 16, "CLASSES": 5, "TRAIN": 200, "STEPS": 1, "REPEATS": 1},
    epoch: {"TRAIN": 200, "STEPS": 1, "TURNS": 1, "FIRST_BATCHES": 1},
    input: {"IMAGES": 200, "JPEGS": 60, "VIEW": 20, "BATCH": 10, "SIDE": 16, "TURNS": 1},
    reference: {"WORKERS": 0},  # images are loaded in this process
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    load = setting.load_cifar_config
    for module, values in SIZES.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
        if hasattr(module, "load_cifar_config"):
            monkeypatch.setattr(module, "load_cifar_config", lambda folder, *words: load(folder, *words, *SMALL))
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12's, of torch's workers
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more than this machine's cores
@pytest.mark.parametrize("part", on_gpu.PARTS)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_each_part_is_measured(device, part) -> None:
    if device == "cpu" and part == "Epoch, captured":
        pytest.skip("passes are captured on a GPU alone")
    timings = on_gpu.PARTS[part](torch.device(device))
    assert len(timings) > 1 and all(one.seconds >= one.fastest > 0 for one in timings.values())


@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-5), (True, 1e-2)])
def test_timed_step_computes_the_published_loss(bfloat16, tolerance) -> None:
    assert step.measure_loss_difference(bfloat16) < tolerance


def test_published_draw_has_other_classes_after_the_sample() -> None:
    labels, indices = np.arange(400) % 5, np.array([3, 17, 250])
    drawn = reference.draw(labels, indices, 64, np.random.default_rng(0)).numpy()
    assert drawn.shape == (3, 65) and (drawn[:, 0] == indices).all()
    assert (labels[drawn[:, 1:]] != labels[indices][:, None]).all()
    assert all(len(set(row)) == 65 for row in drawn)


def test_calls_take_turns_and_warm_up_is_not_timed() -> None:
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    timings = measure_in_turn(calls, 3, timing.CPU)
    assert order == ["a", "b"] * 4 and list(timings) == ["a", "b"]


def test_table_has_ratios_to_the_first_line() -> None:
    table = format_table("Part", {"slow": Timing(20.0, 19.0), "fast": Timing(0.5, 0.4, 3 << 20)}).splitlines()
    assert table[0] == "Part" and table[1].split() == ["time", "of", "slow", "memory"]
    assert table[2].split() == ["slow", "20.0", "s", "1"]
    assert table[3].split() == ["fast", "500.0", "ms", "0.025", "3", "MB"]


def test_parts_are_written_as_they_come(tmp_path, monkeypatch) -> None:
    def fail(device):
        raise RuntimeError("out of time")

    monkeypatch.setattr("sys.argv", ["on_gpu", "--output", str(tmp_path / "tables.txt")])
    parts = {"first": lambda device: {"a": Timing(1.0, 1.0)}, "second": fail}
    with pytest.raises(RuntimeError):
        run_parts("", parts)
    assert "first\n" in (tmp_path / "tables.txt").read_text()
