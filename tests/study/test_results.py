"""Of study/results.py, and study/checks.py."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from diagnostics.aligned import AlignmentVerdict
from diagnostics.plain import to_plain
from settings.study import Hypothesis
from study.measurements import Measurement
from study.results import compute_results
from tests.study.small_study import make_measures

BIASED = {"shortcut.teacher": "biased"}
STATED = {"H1": Hypothesis(measure="following", first="crd_kd", second="two_stage", where=BIASED)}
METHODS = {"crd_kd": 0.40, "two_stage": 0.38, "kd": 0.30, "scratch": 0.20}
ALIGNED = AlignmentVerdict("cosine_last", 0.85, 0.001, "aligned")
LOW = AlignmentVerdict("cosine_last", 0.33, 0.05, "still improving")


def make_planted_study(unbiased_gap: float = 0.01, biased_gap: float = 0.5) -> list[Measurement]:
    """Both arms, four seeds; students of the biased teacher follow as METHODS says, all others 0.05."""
    rng = np.random.default_rng(0)
    records = []
    for teacher, students, seed in itertools.product(("biased", "unbiased"), ("biased", "unbiased"), range(4)):
        point = {"shortcut.cue": "patch", "shortcut.teacher": teacher, "shortcut.students": students}
        gap = biased_gap if teacher == "biased" else unbiased_gap
        rates = METHODS if teacher == "biased" else dict.fromkeys(METHODS, 0.05)
        for method, rate in {"teacher": 0.6 if teacher == "biased" else 0.05, **rates}.items():
            images = rng.binomial(9, rate, 200) / 9
            numbers = {"top1": 0.9, "cue_read": 0.99}
            kl = [3.0, 2.0, 1.01, *[1.0] * 7]
            following = float(images.mean())
            conflicting = 0.9 - (gap if method == "teacher" else 0.3)
            shares = {"aligned": 0.9, "conflicting": conflicting, "clean": 0.9}
            result = make_measures(following, 0.9 - following / 2, **shares)
            records.append(Measurement(point, seed, method, result, images, numbers, kl, teacher, ALIGNED))
    return records


@pytest.fixture(scope="module")
def results():
    return compute_results(make_planted_study(), STATED)


def test_the_study_is_json_and_complete(results) -> None:
    json.dumps(to_plain(results), allow_nan=False)
    assert len(results.summary) == 4 * 5 and len(results.hypotheses) == 2 and results.notes == {}
    row = results.summary[0]
    assert (row.method, row.label) == ("teacher", "cue patch, teacher biased, students biased")
    assert row.values["aligned"].mean == pytest.approx(0.9) and row.values["top1"].n == 4
    assert row.values["worst_group"] is None and "Too few." in row.notes["worst_group"]


def test_primary_is_the_paired_difference_by_seed(results) -> None:
    records = {(r.method, r.seed): r.measures.following for r in make_planted_study()[:20]}
    pairs = [[records[method, seed] for seed in range(4)] for method in ("crd_kd", "two_stage")]
    row, expected = results.hypotheses[0], stats.ttest_rel(*pairs)
    assert row.result.difference == pytest.approx(np.subtract(*pairs).mean())
    assert (row.result.low, row.result.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert row.result.p == pytest.approx(expected.pvalue) and row.result.seeds == [0, 1, 2, 3]
    assert row.beside["unbiased"].difference == pytest.approx(-row.result.difference / 2)
    assert row.sentence and row.decision in ("undecided", "equivalent")


def test_holm_covers_all_stated_tests(results) -> None:
    exceeding = Hypothesis(measure="following", first="two_stage", second="kd", exceeds=0.02, where=BIASED)
    unbiased = Hypothesis(measure="unbiased", first="scratch", second="kd", exceeds=-0.5)
    found = compute_results(make_planted_study(), {**STATED, "H2": exceeding, "H3": unbiased})
    rows = found.hypotheses
    assert [row.name for row in rows] == ["H1", "H1", "H2", "H2", "H3", "H3", "H3", "H3"]
    records = {(r.method, r.seed): r.measures.following for r in make_planted_study()[:20]}
    differences = [records["two_stage", seed] - records["kd", seed] for seed in range(4)]
    assert rows[2].result.p == pytest.approx(stats.ttest_1samp(differences, 0.02, alternative="greater").pvalue)
    assert rows[0].result.p == results.hypotheses[0].result.p
    adjusted = multipletests([row.result.p for row in rows], method="holm")[1]
    assert [row.holm_p for row in rows] == pytest.approx(adjusted)
    assert {row.decision for row in rows[4:]} == {"shown"} and rows[2].margin is None
    tests = {(row.label, row.measure, frozenset((row.first, row.second))) for row in found.rest}
    assert len(tests) == len(found.rest)
    assert not tests & {(row.label, row.measure, frozenset((row.first, row.second))) for row in rows}


def test_the_rest_is_corrected_by_holm_over_all(results) -> None:
    rest = results.rest
    assert len(rest) == 4 * 2 * 2 + 2  # two others against two at each point, the two where not stated
    adjusted = multipletests([row.result.p for row in rest], method="holm")[1]
    assert [row.holm_p for row in rest] == pytest.approx(adjusted)
    tests = {(row.label, row.first, row.second): row for row in rest}
    scratch = tests["cue patch, teacher biased, students biased", "scratch", "crd_kd"]
    assert scratch.result.difference == pytest.approx(-0.2, abs=0.03) and scratch.caution is None
    assert scratch.sentence.startswith("cue following of scratch minus that of crd_kd is −")
    assert not any("teacher" in (row.first, row.second) for row in rest)


def test_inheritance_and_excess(results) -> None:
    rows = {(row.point["shortcut.students"], row.method): row for row in results.inheritance}
    assert len(rows) == 2 * 4
    for (_, method), row in rows.items():
        expected = (METHODS[method] - 0.05) / (0.6 - 0.05)
        assert row.value == pytest.approx(expected, abs=0.05)
        assert row.low < row.value < row.high and row.seeds == [0, 1, 2, 3]
        assert "shortcut.teacher" not in row.point
    summary = {(row.label, row.method): row.values for row in results.summary}
    excess = summary["cue patch, teacher biased, students biased", "kd"]["excess_following"].mean
    assert excess == pytest.approx(0.25, abs=0.03)
    assert "excess_following" not in summary["cue patch, teacher unbiased, students unbiased", "kd"]


def test_models_without_answers_have_no_inheritance() -> None:
    records = [replace(record, per_image_following=None) for record in make_planted_study()]
    row = compute_results(records, STATED).inheritance[0]
    assert row.value is None and row.notes["value"] and row.seeds == []


def test_checks_pass_and_fail_when_they_should(results) -> None:
    assert [check.passed for check in results.checks] == [True] * 5
    assert results.checks[0].value == pytest.approx(0.5)
    records = make_planted_study(unbiased_gap=-0.08, biased_gap=0.02)  # as of a "biased" teacher on random cues
    bad = replace(records[3], numbers={"cue_read": 0.3}, kl=[4.0, 3.0, 2.0, 1.0, 0.5], alignment=LOW)
    found = compute_results([*records[:3], bad, *records[4:]], STATED)
    checks = {check.name: check for check in found.checks}
    assert [check.passed for check in checks.values()] == [False] * 5
    assert checks["teacher_unbiased"].value == pytest.approx(0.08)
    assert "8 of 8 fail, at worst 2.0 points" in checks["teacher_biased"].sentence
    assert len(found.limitations) == 1 and "kd, cue patch, teacher biased" in found.limitations[0]
    unseen = compute_results([replace(records[1], numbers={}, kl=(), alignment=None)], {}).checks
    assert [check.passed for check in unseen] == [None] * 5


@pytest.mark.parametrize(
    ("method", "decision"), [("kd", "shown"), ("two_stage", "blocked"), ("scratch", "blocked")]
)
def test_a_failed_check_of_its_models_blocks_a_claim(method: str, decision: str) -> None:
    stated = {"H": Hypothesis(measure="following", first="two_stage", second="scratch", exceeds=0, where=BIASED)}
    records = [replace(r, alignment=LOW) if (r.method, r.seed) == (method, 2) else r for r in make_planted_study()]
    rows = compute_results(records, stated).hypotheses
    assert {row.decision for row in rows} == {decision}
    failed = "blocked by failed self-checks (stage1 aligned, stage1 at rest): "
    assert all((failed in row.sentence) == (decision == "blocked") for row in rows)


def test_a_study_without_a_cue() -> None:
    rng = np.random.default_rng(0)
    records = [
        Measurement({"student.arch": arch}, seed, method, None, None, {"top1": top1 + rng.normal(0, 0.003)})
        for arch, seed, (method, top1) in itertools.product(
            "ab", range(5), {"kd": 0.8, "crd": 0.9, "x": 0.8}.items()
        )
    ]
    plain = compute_results(records, {})
    json.dumps(to_plain(plain), allow_nan=False)
    assert list(plain.summary[0].values) == ["top1"]
    assert [(row.first, row.second) for row in plain.rest[:3]] == [
        ("kd", "crd"),
        ("kd", "x"),
        ("crd", "x"),
    ]
    assert plain.rest[0].sentence.startswith("test accuracy of kd minus that of crd is −")
    assert plain.checks == plain.inheritance == plain.hypotheses == []
    assert set(plain.notes) == {"hypotheses", "inheritance"}
    stated = Hypothesis(measure="clean", first="crd", second="kd", margin=0.01, where={"student.arch": "b"})
    (row,) = compute_results(records, {"H1": stated}).hypotheses
    assert row.decision == "higher" and row.result.difference == pytest.approx(0.1, abs=0.01)
    nowhere = stated.model_copy(update={"where": {"student.arch": "c"}})
    assert compute_results(records, {"H1": nowhere}).notes["hypotheses"]


def test_missing_seeds_are_left_out_and_repeated_refused() -> None:
    records = [r for r in make_planted_study() if (r.method, r.seed) != ("crd_kd", 2)]
    assert compute_results(records, STATED).hypotheses[0].result.seeds == [0, 1, 3]
    with pytest.raises(ValueError, match="two records of teacher, seed 0"):
        compute_results([*records, records[0]], STATED)


def test_sentences_tell_of_unaligned_stages(results) -> None:
    assert all("stage 1" not in row.sentence for row in (*results.hypotheses, *results.rest))
    records = [
        replace(r, alignment=LOW) if (r.method, r.seed) == ("two_stage", 1) else r for r in make_planted_study()
    ]
    said = "(stage 1 of two_stage: still improving in 1 of 4 seeds)"
    found = compute_results(records, STATED)
    about = [row for row in (*found.hypotheses, *found.rest) if "two_stage" in (row.first, row.second)]
    assert about and all(row.sentence.endswith(said) for row in about)
