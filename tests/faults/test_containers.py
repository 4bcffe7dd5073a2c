"""Killed as process 1 and started again as process 1, in namespaces as a container has them."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

WORK = """
import os, sys
from pathlib import Path
from files import locked, new_folder
folder = Path(sys.argv[1])
with new_folder(folder / "decoded") as partial, locked(folder / "lock", strict=True) as other:
    (partial / "pixels").touch()
    print(os.getpid(), other, flush=True)
    if sys.argv[2] == "dies":
        os._exit(9)
"""


def contained(*command):
    """Run a command as process 1 of a namespace."""
    words = ["unshare", "--pid", "--fork", "--kill-child", *command]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(
    not shutil.which("unshare") or contained("true").returncode, reason="process namespaces cannot be made here"
)
def test_what_process_1_left_does_not_keep_the_next_process_1_from_starting(tmp_path):
    for how in ("dies", "dies", "lives"):
        done = contained(sys.executable, "-c", WORK, str(tmp_path), how)
        assert done.stdout == "1 None\n", done.stderr
        left = {path.name for path in tmp_path.iterdir()}
        assert len(left) == (3 if how == "dies" else 1)  # a folder, its lock and a lock: of the last that died
    assert [path.name for path in (tmp_path / "decoded").iterdir()] == ["pixels"]
