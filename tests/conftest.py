"""A data set of 64 small images, a config for it, and ways to run the commands on them."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from threadpoolctl import threadpool_limits

import main
from dataset.prepare import prepare
from dataset.sources import load_source
from errors import run_command
from models.machine import Machine
from settings.reading import load_config
from training.experiment import Experiment
from training.run.run_folder import RunFolder

ROOT = Path(main.__file__).parent


NO_GPU = "no GPU here (torch.cuda.is_available() is false)"
LONGEST = (
    "tests/training/test_distributed.py",
    "tests/test_main_eval.py",
    "tests/training/run/test_identity.py",
    "tests/test_resume.py",
    "tests/study/test_run.py",
    "tests/diagnostics/report/test_folder.py",
    "tests/training/test_methods.py",
    "tests/test_docs.py",
    "tests/training/test_progress.py",
    "tests/diagnostics/export/test_pack.py",
    "tests/test_main.py",
)  # files that take over 10 s, the longest first


def pytest_collection_modifyitems(items):
    """Sort slow files first, so that no process is left with one at the end."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))
    for item in items if not torch.cuda.is_available() else ():
        if item.get_closest_marker("cuda") is not None:
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


def pytest_collection_finish():
    """Keep the garbage collector from scanning half a million imported objects again and again."""
    gc.freeze()
    gc.set_threshold(10_000)


def pytest_terminal_summary(terminalreporter):
    skipped = [one for one in terminalreporter.stats.get("skipped", []) if "cuda" in one.keywords]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests marked cuda skipped: {NO_GPU}")


@pytest.fixture(scope="session", autouse=True)
def use_one_thread():
    """Use one thread, here and in subprocesses, so that results can be compared bit by bit."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def image_root(tmp_path_factory) -> Path:
    """Class folders of 16 training and 8 test images, 16 x 16: a colour a class under noise."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ash", "birch", "cedar", "date")):
        colour = 64 + 128 * np.array([label & 1, label >> 1, 0])
        for part, count in (("train", 16), ("test", 8)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(colour, 60, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def tiny_config(image_root, tmp_path_factory) -> Path:
    """A YAML file that trains everything on those images in seconds."""
    folder = tmp_path_factory.mktemp("config")
    values = {
        "name": "tiny",
        "precision": "float32",
        "data": {
            "source": "folder",
            "root": str(image_root),
            "image_size": 16,
            "crop": 2,
            "cache_dir": str(folder / "cache"),
        },
        "teacher": {"arch": "resnet8", "epochs": 2, "batch_size": 16},
        "student": {"arch": "resnet8"},
        "losses": {"crd": {"num_negatives": 16, "dim": 8}},
        "training": {"epochs": 4, "batch_size": 16},
        "methods": {
            **dict.fromkeys(("scratch", "kd", "crd", "crd_kd"), {}),
            "two_stage": {
                "stage1": {"optimizer": {"lr": 0.03, "schedule": "exponential"}},
                "stage2": {"epochs": 0.5, "optimizer": {"lr": 0.01}},
            },
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    load_source(load_config(path).data)  # decoded here, so that no command in a test writes the cache
    return path


@pytest.fixture
def make_experiment(tiny_config, tmp_path):
    """`make_experiment("training.epochs=3", runs=folder)`: an experiment on the tiny data, in this process."""

    def make(*overrides: str, runs: Path = tmp_path / "runs") -> Experiment:
        config = load_config(tiny_config, overrides)
        machine = Machine(torch.device("cpu"), bfloat16=False, quiet=True)
        data = prepare(load_source(config.data), config.data, machine.device, config.shortcut)
        return Experiment(config, data, machine, RunFolder(runs / config.name))

    return make


@pytest.fixture(scope="session")
def start_main(tiny_config):
    """Return `start_main(runs, "--phase", "all")`, which starts `python main.py` on the tiny config."""

    def start(runs: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [sys.executable, *launcher, str(ROOT / "main.py"), "--config", str(tiny_config)]
        return subprocess.Popen(
            [*command, "--output-dir", str(runs), *arguments],
            cwd=runs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def run_main(start_main):
    """Return the same as `start_main`, but to the end of the process, with its output and exit code."""

    def run(runs: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        process = start_main(runs, *arguments, launcher=launcher)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def train(tiny_config):
    """Return `train(runs, "--phase", "all")`, which runs main.py in this process for its files alone."""

    def run_to_the_end(runs: Path, *arguments: str) -> None:
        words = ["main.py", "--config", str(tiny_config), "--output-dir", str(runs), "--quiet", *arguments]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words)
            assert run_command(main.run) == 0

    return run_to_the_end


@pytest.fixture
def call_main(tiny_config, monkeypatch, capfd):
    """Return `call_main(runs, "--phase", "all")`, as `run_main` without a new process."""

    def call(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = () if "--config" in arguments else ("--config", str(tiny_config))
        words = ["main.py", *config, "--output-dir", str(runs), *arguments]
        monkeypatch.setattr(sys, "argv", words)
        capfd.readouterr()
        code = run_command(main.run)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    return call


@pytest.fixture(scope="session")
def hold_for_a_moment():
    """Return `hold_for_a_moment(64_000_000)`, which allocates bytes that are new to the process and frees them.

    A large array may reuse what earlier tests freed, and then nothing grows.
    """

    def hold(size: int) -> None:
        with mmap.mmap(-1, size) as memory:
            for place in range(0, size, mmap.PAGESIZE):
                memory[place] = 1

    return hold
