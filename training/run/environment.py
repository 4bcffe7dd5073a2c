"""Where numbers were made: versions, hardware, git state."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from errors import UserError, warn
from training.run.record_file import read_record


def environment() -> dict[str, Any]:
    """Return versions, hardware and git state that a run's numbers came from."""
    import torch  # takes seconds, and who reads what was written needs none

    from training import distributed

    packages = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pydantic")
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor())
        if hasattr(torch.cpu, "get_capabilities")
        else platform.processor(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "processes": distributed.world_size(),
        "git": _git_state(),
    }


def read_environment(folder: Path) -> dict[str, Any] | None:
    """Read environment.json of a run; None where there is none, or with a warning where it is damaged."""
    path = folder / "environment.json"
    if not path.exists():
        return None
    try:
        return read_record(path, "where the run was trained is left out")
    except UserError as error:
        warn(str(error))
        return None


def _git_state() -> dict[str, Any]:
    def ask(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[2]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}
