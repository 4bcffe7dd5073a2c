"""Of experiments: every config loads, stands alone, and is explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from dataset.prepare import prepare
from dataset.sources import load_source
from settings.loss_options import fill_losses
from settings.reading import load_config
from study.grid import list_runs
from study.methods import list_students

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FOLDERS = sorted(filter(Path.is_dir, EXPERIMENTS.iterdir()))
CONFIGS = {str(path.relative_to(EXPERIMENTS)): path for path in sorted(EXPERIMENTS.rglob("*.yaml"))}


def list_bases(path: Path) -> list[Path]:
    bases = []
    while (base := yaml.safe_load(path.read_text(encoding="utf-8")).get("base")) is not None:
        path = path.parent / base
        bases.append(path)
    return bases


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_a_valid_study(name) -> None:
    config = fill_losses(load_config(CONFIGS[name]))
    assert list_runs(config)
    methods = list_students(config, 0).keys()
    study = config.study
    stated = {method for one in study.hypotheses.values() for method in (one.first, one.second)}
    assert {*stated, *study.twins, *study.twins.values(), *sum(study.tries.values(), [])} <= methods
    assert len({len(family) for family in study.tries.values()}) <= 1  # as many tries for each


@pytest.mark.parametrize("name", CONFIGS)
def test_config_needs_its_own_folder_alone(name) -> None:
    bases = list_bases(CONFIGS[name])
    assert len(bases) < 2 and all(base.parent == CONFIGS[name].parent for base in bases)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_readme_has_cost_date_and_answer(folder) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert all(word in text for word in ("Cost", "Date:", "Answer:", f"experiments/{folder.name}/"))
    assert f"({folder.name}/README.md)" in (EXPERIMENTS / "README.md").read_text(encoding="utf-8")


def test_digits_study_uses_fresh_seeds() -> None:
    study, tint, tries = (
        load_config(EXPERIMENTS / "digits_patch" / f"{name}.yaml").seeds for name in ("study", "tint", "tries")
    )
    assert study == tint and not set(study) & set(tries)


def test_digits_are_split_as_the_study_says() -> None:
    config = load_config(EXPERIMENTS / "digits_patch" / "study.yaml")
    data = prepare(load_source(config.data), config.data, torch.device("cpu"), config.shortcut)
    assert (len(data.train), len(data.balanced), len(data.test)) == (1000, 300, 497)
    assert (
        config.teacher.cached_views
        == config.training.epochs
        == sum(one.epochs for one in config.stages["two_stage"])
    )
