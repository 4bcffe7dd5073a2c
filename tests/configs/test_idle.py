"""A setting that counts for nothing gets a word, and one that counts somewhere gets none."""

from __future__ import annotations

from pathlib import Path

import pytest

import main
from configs.idle import idle_settings
from configs.reading import DEFAULT_CONFIG, load_config

ROOT = Path(main.__file__).parent


def said(*overrides: str, path: Path = DEFAULT_CONFIG, study: bool = False) -> list[str]:
    return idle_settings(path, overrides, load_config(path, overrides), study)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.yaml")), ids=lambda path: str(path.name))
def test_shipped_configs_hold_nothing_that_counts_for_nothing(path):
    assert said(path=path) == []
    assert said(path=path, study=True) == []


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("kd.patience=3", "kd.until=epochs ends at the last epoch whatever is measured"),
        ("teacher.watch=val_loss", "teacher.until=epochs ends at the last epoch whatever is measured"),
        ("crd.optimizer.gamma=0.5", "crd.optimizer.schedule=cosine has no such factor"),
        ("kd.optimizer.momentum=0.5", "kd.optimizer.name=adam has none, sgd has"),
        ("baselines.error_weight=5", "baselines.errors_of names nobody whose errors are weighted"),
        ("crd.ridge=0.1", "crd.objective=infonce whitens nothing, regression does"),
        ("data.root=somewhere", "data.source=digits comes with scikit-learn, source: folder reads class folders"),
        ("data.mix_strength=0.5", "data.mix=none mixes nothing"),
        ("shortcut.conflicting=0.1", "shortcut.cue=none plants no cue"),
    ],
)
def test_a_setting_beside_others_that_leave_it_nothing_to_do_is_named(override, why):
    assert said(override) == [f"{override.partition('=')[0]} counts for nothing: {why}"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["kd.patience=3", "kd.until=plateau", "data.val_fraction=0.2"],
        ["kd.patience=3", "variants={one: {kd: {until: plateau}}}", "data.val_fraction=0.2"],
        ["crd.ridge=0.1", "variants={white: {crd: {objective: regression}}}"],
        ["crd.ridge=0.1", "baselines.variants={once: {crd: {objective: regression}}}"],
        ["shortcut.conflicting=0.1", "shortcut.cue=patch"],
        ["data.root=somewhere", "data.source=folder"],
    ],
)
def test_a_setting_that_one_training_uses_is_not_named(overrides):
    assert said(*overrides) == []


def test_of_a_mapping_each_key_is_judged():
    assert said("crd={ridge: 0.1, batch_size: 16}") == [
        "crd.ridge counts for nothing: crd.objective=infonce whitens nothing, regression does"
    ]


def test_a_file_is_judged_without_its_base_and_without_overrides(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(f"base: {DEFAULT_CONFIG}\nname: own\nkd: {{min_delta: 0.01}}\n")
    line = "kd.min_delta counts for nothing: kd.until=epochs ends at the last epoch whatever is measured"
    assert said(path=own) == [line]
    assert said("crd.negatives=batch", "crd.mode=instance", path=own) == [line]  # not num_negatives, the base's
    assert said("crd.num_negatives=64", "crd.negatives=batch", "crd.mode=instance", path=own) == [
        "crd.num_negatives counts for nothing: negatives come from no bank here",
        line,
    ]


def test_a_file_that_is_valid_with_overrides_alone_is_judged_with_them(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        f"base: {DEFAULT_CONFIG}\nname: own\nkd: {{until: plateau, patience: 3}}\ncrd: {{ridge: 0.1}}\n"
    )
    assert said("data.val_fraction=0.2", path=own) == [
        "crd.ridge counts for nothing: crd.objective=infonce whitens nothing, regression does"
    ]


def test_what_a_study_varies_is_not_judged():
    grid = "study.grid=[{shortcut.cue: [patch]}]"
    assert said("shortcut.conflicting=0.1", grid, study=True) == []
    assert said("shortcut.conflicting=0.1", grid) != []
