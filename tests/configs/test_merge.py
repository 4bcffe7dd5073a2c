from __future__ import annotations

from pathlib import Path

import pytest

from configs.merge import merge
from configs.reading import load_config
from study.grid import runs_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(
        "crd: {dim: 32, epochs: 7, optimizer: {schedule: cosine, weight_decay: 0.1, lr: 0.2}}\n"
        "variants: {fast: {crd: {optimizer: {lr: 0.5}}}}\n",
        encoding="utf-8",
    )
    return tmp_path / "c.yaml"


def test_sections_merge_and_all_else_is_replaced() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}
    assert merge(base, {"a": {"c": {"f": 3}}, "e": [3]}) == {"a": {"b": 1, "c": {"d": 2, "f": 3}}, "e": [3]}
    assert merge(base, {"a": 5}) == {"a": 5, "e": [1, 2]} and base["a"] == {"b": 1, "c": {"d": 2}}


def test_a_section_that_is_set_keeps_what_it_does_not_name(path: Path) -> None:
    # Before, dim fell back to its default of 256.
    crd = load_config(path, ["crd={epochs: 3}"]).crd
    assert (crd.epochs, crd.dim, crd.optimizer.schedule) == (3, 32, "cosine")


def test_a_variant_keeps_the_rest_of_the_optimizer(path: Path) -> None:
    # Before, schedule and weight decay fell back to the defaults of an optimizer.
    optimizer = load_config(path).variant("fast").crd.optimizer
    assert (optimizer.lr, optimizer.schedule, optimizer.weight_decay) == (0.5, "cosine", 0.1)


def test_a_point_of_a_grid_keeps_the_rest_of_a_section(path: Path) -> None:
    config = load_config(path, ["study.grid=[{crd.optimizer: [{lr: 0.3}, {lr: 0.4}]}]"])
    found = [run.config.crd.optimizer for run in runs_of(config)]
    assert [(one.lr, one.schedule, one.weight_decay) for one in found] == [
        (0.3, "cosine", 0.1),
        (0.4, "cosine", 0.1),
    ]
