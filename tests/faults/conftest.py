"""A finished run, once, and a copy of it to damage."""

from __future__ import annotations

import shutil

import pytest

from tests.faults.short_run import SHORT


@pytest.fixture(scope="session")
def whole_run(train, tmp_path_factory):
    runs = tmp_path_factory.mktemp("whole")
    train(runs, "--phase", "all", "--set", *SHORT)
    return runs / "tiny"


@pytest.fixture
def copied(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "tiny")
    return tmp_path / "tiny"
