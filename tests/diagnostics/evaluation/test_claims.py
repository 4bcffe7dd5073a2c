"""Of diagnostics/evaluation/claims.py and diagnostics/tables/comparison.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diagnostics.evaluation.analysis import compute_report
from diagnostics.evaluation.claims import BALANCED, CUED, FOREIGN, describe_depth, measure_model_gap
from diagnostics.evaluation.recording import Recording
from diagnostics.report.files import write_json
from diagnostics.tables.comparison import make_ensembles_table, make_variances_table
from diagnostics.tables.predictions import make_generalisation_table
from tests.diagnostics.report.test_folder import CLASSES, LABELS, TRAINED, network, recordings


def several() -> Recording:
    models = [network("teacher", right=0.9)]
    for number, (own, other) in enumerate([(0.5, 0.6), (0.5, 0.7), (0.55, 0.8)]):
        suffix = f"/{number}" if number else ""
        models += [network(f"two_stage{suffix}", right=own), network(f"kd{suffix}", right=other)]
    return recordings(models)


def test_ensembles_join_teacher_student_seeds_and_methods() -> None:
    found = compute_report(several()).claims.ensembles
    assert [(row.members, row.rule) for row in found] == [
        (["teacher", "two_stage"], "mean of probabilities"),
        (["teacher", "kd"], "mean of probabilities"),
        (["two_stage", "two_stage/1", "two_stage/2"], "mean of probabilities"),
        (["two_stage", "two_stage/1", "two_stage/2"], "majority vote"),
        (["kd", "kd/1", "kd/2"], "mean of probabilities"),
        (["kd", "kd/1", "kd/2"], "majority vote"),
        (["two_stage", "kd"], "mean of probabilities"),
    ]
    vote = found[5]  # by construction a model is right on the first images: two of three are on 70 % of them
    assert vote.top1 == pytest.approx(np.mean(np.arange(len(LABELS)) < 0.7 * len(LABELS)))
    assert vote.gain.a == "kd/2" and vote.gain.statistics.difference == pytest.approx(vote.top1 - 39 / 48)
    assert vote.gain.interval.low <= vote.gain.statistics.difference <= vote.gain.interval.high
    assert vote.gain.holm_log10_p is None or vote.gain.holm_log10_p >= vote.gain.quoted_log10_p
    shown = [row[0].value for row in make_ensembles_table(found).rows]
    assert "kd of 3 seeds" in shown and "teacher + kd" in shown


def test_spread_of_three_seeds_is_not_tested() -> None:
    report = compute_report(several())
    (row,) = report.claims.variances
    assert (row.a, row.b, row.result.n_a, row.result.n_b) == ("kd", "two_stage", 3, 3)
    assert row.holm_p is None and row.result.seeds_for_double > 10
    assert "not tested. The test needs 4 seeds" in row.sentence and "it would take" not in row.sentence
    assert "no difference shown in spread" in row.sentence and row.sentence in report.claims.sentences
    assert make_variances_table([]).empty.startswith("Two methods need")


def test_accuracies_on_two_values_leave_a_report(tmp_path: Path) -> None:
    """The spread's test is 0 / 0 then."""
    rights = [("kd", 0.5), ("kd/1", 0.75), ("kd/2", 0.5), ("kd/3", 0.75)]
    models = [
        network(name.replace("kd", method), right=right)
        for method in ("two_stage", "kd")
        for name, right in rights
    ]
    report = compute_report(recordings(models))
    assert report.claims.variances[0].holm_p is None
    write_json(report, tmp_path / "report.json")
    assert "not tested. In each method" in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_gap_notes_what_its_training_images_are() -> None:
    recording, model = recordings([network("kd")]), network("kd")
    known = replace(model, train_logits=np.eye(CLASSES, dtype=np.float32)[TRAINED])
    found = measure_model_gap(known, recording)
    assert found.train_top1 == 1 and found.top1_gap == pytest.approx(1 - found.test_top1)
    assert found.notes == {"train_top1": FOREIGN}  # no training of it is on record
    cued = replace(recording.context, config={**recording.context.config, "shortcut": {"cue": "patch"}})
    later = replace(known, meta=replace(known.meta, detailed=False))
    assert measure_model_gap(later, replace(recording, context=cued)).notes == {"train_top1": CUED}
    row = make_generalisation_table({"kd": found}).rows[0]
    assert [row[1].value, row[1].note, row[3].value] == [1.0, FOREIGN, found.top1_gap]
    assert "Its classifier" in BALANCED and measure_model_gap(model, recording).top1_gap is None


def test_frozen_and_fine_tuned_features_are_compared() -> None:
    recording = recordings([network("frozen", right=0.9), network("two_stage", right=0.4)])
    first, last = {"train": "features"}, {"losses": {"kl": {"weight": 1.0}}}
    methods = {
        "frozen": {"stage1": first, "stage2": {**last, "train": "head"}},
        "other": {"stage1": first, "stage2": {"train": "all"}},
        "kd": {"stage1": {**last, "train": "all"}},
        "two_stage": {"stage1": first, "stage2": {**last, "train": "last_block"}},
    }
    config = {**recording.context.config, "methods": methods}
    recording = replace(recording, context=replace(recording.context, config=config))
    report = compute_report(recording)
    (line,) = describe_depth(recording, report.pairs, report.seeds)
    assert line.startswith("train: last_block in two_stage, head in frozen: two_stage is 50.0 points worse")
    assert report.claims.sentences[0] == line
