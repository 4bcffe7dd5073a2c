"""Of study/effects.py, and the table of effects in a study's report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from settings.reading import load_config
from study.effects import FROZEN, IMAGES, SEPARATE, Effect, list_effects
from study.report import make_report
from study.results import compute_results
from study.tables import make_effects
from tests.study.test_report import make_context, make_records

METHODS = (
    "{two_stage: {}, kd: {}, head: {base: two_stage, stage2: {train: head}}, "
    "all: {base: two_stage, stage2: {train: all, feature_lr: null, optimizer: {lr: 0.3}}}, "
    "refit: {twin_of: two_stage, refit: head}, at_once: {twin_of: two_stage}, "
    "retrained: {base: head, stage2: {images: balanced}}, "
    "longer: {base: two_stage, stage2: {train: all, epochs: 0.5}}, "
    "other_loss: {twin_of: two_stage, refit: head, losses: {ce: false}}}"
)


def test_pairs_differ_in_one_part_alone(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"data: {{val_fraction: 0.2}}\nmethods: {METHODS}\n", encoding="utf-8")
    config = load_config(tmp_path / "c.yaml", [])
    assert set(list_effects(config)) == {
        Effect(FROZEN, "head", "two_stage"),
        Effect(FROZEN, "head", "all"),
        Effect(SEPARATE, "head", "refit"),
        Effect(IMAGES, "retrained", "head"),
    }


@pytest.mark.parametrize("effects", [[], [Effect(SEPARATE, "two_stage", "crd_kd")]])
def test_effects_stand_in_a_table_with_holm_over_its_rows(effects: list[Effect]) -> None:
    records = make_records(4)
    found = compute_results(records, {}, effects=effects).effects
    assert [(row.name, row.measure) for row in found] == [
        (one.name, measure) for _ in range(4) for one in effects for measure in ("following", "unbiased")
    ]
    report = make_report(records, replace(make_context(records, {}), effects=effects))
    table = make_effects(report, [])
    assert len(table.rows) == len(found)
    for row in found:
        rest = compute_results(records, {}).rest
        same = [
            one for one in rest if {one.first, one.second} == {row.first, row.second} and one.point == row.point
        ]
        if row.measure == "following":
            assert abs(same[0].result.difference or 0) == pytest.approx(abs(row.result.difference or 0))
            assert row.holm_p is not None and row.result.p is not None and row.holm_p >= row.result.p
