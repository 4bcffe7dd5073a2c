"""A finished run, once, and a copy of it to damage."""

from __future__ import annotations

import shutil
import sys

import pytest

import main
from errors import exit_code
from tests.faults.short_run import SHORT


@pytest.fixture(scope="session")
def whole_run(tiny_config, tmp_path_factory):
    runs = tmp_path_factory.mktemp("whole")
    words = ["main.py", "--config", str(tiny_config), "--output-dir", str(runs), "--phase", "all", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*words, "--set", *SHORT])
        assert exit_code(main.run) == 0
    return runs / "tiny"


@pytest.fixture
def copied(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "tiny")
    return tmp_path / "tiny"
