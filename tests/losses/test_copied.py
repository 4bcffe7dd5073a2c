"""The folder losses/, and each of its files, work where they are copied: they need torch and each other."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys

import pytest

from settings.loss_options import FOLDER, list_losses

LOSSES = sorted(list_losses())
SCRIPT = """
import builtins, importlib, importlib.util, json, sys
from pathlib import Path

import torch

packages = sorted(path.name for path in Path.cwd().iterdir())
allowed = {"torch", *sys.stdlib_module_names}
plain = builtins.__import__


def import_allowed(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "").partition(".")[0]
    if importer in packages and level == 0 and name.partition(".")[0] not in allowed:
        raise ImportError(f"{importer} imports {name}")
    return plain(name, globals, locals, fromlist, level)


builtins.__import__ = import_allowed
assert not any(importlib.util.find_spec(name) for name in ("losses", "configs", "errors"))


def compute(package, name):
    interface, module = (importlib.import_module(f"{package}.{one}") for one in ("loss", name))
    (kind,) = [
        one for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, interface.Loss) and one.__module__ == module.__name__
    ]
    loss = kind(num_negatives=8, dim=4) if name == "crd" else kind()
    torch.manual_seed(0)
    widths = [{"penultimate": (one,), "last": (one + 1,), "features": (one + 1,)} for one in (3, 5)]
    sides = {"stage1": 4, "stage2": 2, "stage3": 2}
    shapes = [{tap: (one + 1, side, side) for tap, side in sides.items()} for one in (3, 5)]
    for maps in shapes:
        maps["last_stage"] = (6, 2, 2)  # of both, behind a connector
    labels = torch.arange(20) % 4
    loss.setup(interface.Sizes(*(own | maps for own, maps in zip(widths, shapes)), labels))
    classifier = torch.nn.Linear(6, 4).requires_grad_(False)
    views = [
        interface.View(
            torch.randn(6, 4),
            *({tap: torch.randn(6, *shape) for tap, shape in one.items()} for one in each),
            classifier,
        )
        for each in zip(widths, shapes)
    ]
    samples = interface.Samples(torch.arange(6), labels[:6], labels[:6])
    if loss.first_pass != "none":
        loss.prepare(*views, samples)
        loss.finish_prepare()
    loss.start_epoch()
    found = loss(*views, samples)
    return {tap: term.item() for tap, term in (found.items() if isinstance(found, dict) else [("", found)])}


wanted = json.loads(sys.argv[1])
print(json.dumps({package: {name: compute(package, name) for name in names} for package, names in wanted.items()}))
"""


def find_needed(name: str) -> set[str]:
    """The files of losses/ that one imports from beside it, and those from beside them, itself among them."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            tree = ast.parse((FOLDER / f"{one}.py").read_text(encoding="utf-8"))
            waiting += [
                str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level
            ]
    return found


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, float]]]:
    """The terms of each loss, by package and loss, from one process that sees the copies alone."""
    place = tmp_path_factory.mktemp("copies")
    shutil.copytree(FOLDER, place / "copied_losses", ignore=shutil.ignore_patterns("__pycache__"))
    wanted = {"copied_losses": LOSSES}
    for name in LOSSES:
        wanted[f"only_{name}"] = [name]
        (place / f"only_{name}").mkdir()
        for one in find_needed(name):
            shutil.copy(FOLDER / f"{one}.py", place / f"only_{name}")
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(wanted)]
    done = subprocess.run(command, cwd=place, env=without, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_copied_folder_computes_every_loss(computed: dict[str, dict[str, dict[str, float]]]) -> None:
    found = computed["copied_losses"]
    assert sorted(found) == LOSSES
    assert all(0 < value < float("inf") for terms in found.values() for value in terms.values())


@pytest.mark.parametrize("name", LOSSES)
def test_copied_file_computes_the_same_loss(name: str, computed: dict[str, dict[str, dict[str, float]]]) -> None:
    assert computed[f"only_{name}"][name] == computed["copied_losses"][name]
