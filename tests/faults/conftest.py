"""A workspace that is trained once and put back after each test."""

from __future__ import annotations

import pytest

from tests.faults.harness import Workspace, restore_snapshot, take_snapshot


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("faults")).make().train_everything()
    return workspace, take_snapshot(workspace.folder)


@pytest.fixture
def snapshot(finished):
    return finished[1]


@pytest.fixture
def workspace(finished):
    workspace, snapshot = finished
    yield workspace
    restore_snapshot(workspace.folder, snapshot)
