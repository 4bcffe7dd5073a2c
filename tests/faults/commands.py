"""Commands as processes that can be killed with all that they started.

Most are forked from a process that has imported them, so that a kill meets their work and not the imports.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import ROOT

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PRELOADED = ["main", "main_eval", "torch.utils.tensorboard", "matplotlib.pyplot", "tests.faults.commands"]


@dataclass(frozen=True)
class Started:
    """A running command, the first of a process group of its own."""

    script: str
    process: multiprocessing.process.BaseProcess | subprocess.Popen[bytes]
    errors: Path  # what it prints to stderr

    def wait(self, seconds: float | None) -> int | None:
        """Return the exit code, None if it still runs after so long."""
        if isinstance(self.process, subprocess.Popen):
            try:
                return self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> bool:
        """Kill it and all that it started; return whether it still ran."""
        running = self.wait(0) is None
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait(None)
        return running


def start(folder: Path, script: str, words: Sequence[str], torchrun: bool = False) -> Started:
    """Start main.py or main_eval.py, by name without its ending, in a folder."""
    errors = folder / "stderr.txt"
    if not torchrun:
        return _fork(folder, script, words, errors, {})
    command = [sys.executable, *TORCHRUN, str(ROOT / f"{script}.py"), *words]
    with open(errors, "wb") as file:
        plain = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # the tests set it, a soak does not
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )
    return Started(script, plain, errors)


def start_two(folder: Path, script: str, words: Sequence[str]) -> tuple[TCPStore, list[Started]]:
    """Start a command, or the script of a path, as two processes that find each other as torchrun's do.

    Keep the store that is returned: the processes meet in it.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    found = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return store, [
        _fork(
            folder,
            script,
            words,
            folder / f"stderr{rank}.txt",
            {**found, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]


def _fork(
    folder: Path, script: str, words: Sequence[str], errors: Path, environment: Mapping[str, str]
) -> Started:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(
        target=_call, args=(str(folder), script, list(words), str(errors), dict(environment))
    )
    process.start()
    return Started(script, process, errors)


def _call(folder: str, script: str, words: list[str], errors: str, environment: dict[str, str]) -> None:
    """Run a command as its own last lines do, in a process of its own."""
    import torch

    from errors import run_command

    os.environ.update(environment)
    os.setsid()
    os.chdir(folder)
    for path, number in ((os.devnull, 1), (errors, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    torch.set_num_threads(1)
    sys.argv = [f"{script}.py", *words]
    if script.endswith(".py"):
        sys.argv = [script, *words]
        runpy.run_path(script)
        return
    sys.exit(run_command(importlib.import_module(script).run))
