"""Versions, hardware and git state of a run, in environment.json."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from errors import UserError, warn
from training.run.record_file import read_record

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pydantic")


def collect_environment() -> dict[str, Any]:
    """Return what environment.json records of this process."""
    import torch  # takes seconds, and reading the file needs none

    from training import distributed

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "processor": capabilities.get("cpu_name", platform.processor()),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "processes": distributed.world_size(),
        "git": _describe_git(),
    }


def read_environment(folder: Path) -> dict[str, Any] | None:
    """Read environment.json of a run; None where there is none, and with a warning where it is damaged."""
    path = folder / "environment.json"
    if not path.exists():
        return None
    try:
        return read_record(path, "where the run was trained is left out")
    except UserError as error:
        warn(str(error))
        return None


def _describe_git() -> dict[str, Any]:
    def call_git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[2]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": call_git("rev-parse", "HEAD"), "changed": bool(call_git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}
