from __future__ import annotations

from pathlib import Path

import pytest

from settings.merge import flatten, merge
from settings.reading import load_config
from study.grid import list_runs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(
        "losses: {crd: {dim: 32, objective: infonce}}\n"
        "training: {epochs: 7, optimizer: {schedule: constant, weight_decay: 0.1, lr: 0.2}}\n"
        "methods: {two_stage: {stage1: {optimizer: {gamma: 0.7}}}, "
        "fast: {base: two_stage, stage1: {optimizer: {lr: 0.5}}}}\n",
        encoding="utf-8",
    )
    return tmp_path / "c.yaml"


def test_sections_merge_and_all_else_is_replaced() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}
    assert merge(base, {"a": {"c": {"f": 3}}, "e": [3]}) == {"a": {"b": 1, "c": {"d": 2, "f": 3}}, "e": [3]}
    assert merge(base, {"a": 5}) == {"a": 5, "e": [1, 2]} and base["a"] == {"b": 1, "c": {"d": 2}}


def test_taps_are_replaced_whole() -> None:
    base = {"crd": {"taps": {"last": 1, "penultimate": 0.5}, "dim": 8}}
    assert merge(base, {"crd": {"taps": {"stage3": 1}}}) == {"crd": {"taps": {"stage3": 1}, "dim": 8}}


def test_flattened_values_have_dotted_keys() -> None:
    values = {"a": {"b": 1, "c": {"d": [2], "e": {}}}, "f": None}
    assert flatten(values) == {"a.b": 1, "a.c.d": [2], "a.c.e": {}, "f": None}


def test_a_section_keeps_what_an_override_leaves_out(path: Path) -> None:
    assert load_config(path, ["losses.crd={objective: nce}"]).losses["crd"] == {"dim": 32, "objective": "nce"}
    training = load_config(path, ["training={epochs: 3}"]).training
    assert (training.epochs, training.optimizer.lr, training.optimizer.schedule) == (3, 0.2, "constant")


def test_a_method_keeps_the_rest_of_the_optimizer(path: Path) -> None:
    found = load_config(path).stages["fast"][0].optimizer
    assert (found.lr, found.schedule, found.weight_decay, found.gamma) == (0.5, "constant", 0.1, 0.7)


def test_grid_points_keep_the_rest_of_sections(path: Path) -> None:
    config = load_config(path, ["study.grid=[{training.optimizer: [{lr: 0.3}, {lr: 0.4}]}]"])
    found = [run.config.training.optimizer for run in list_runs(config)]
    assert [(one.lr, one.schedule, one.weight_decay) for one in found] == [
        (rate, "constant", 0.1) for rate in (0.3, 0.4)
    ]
