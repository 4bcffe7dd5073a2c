"""Of diagnostics/report/comparison.py, diagnostics/evaluation/evaluated.py, diagnostics/tables/runs.py and
diagnostics/figures/predictions.py.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from diagnostics.evaluation import recording_file
from diagnostics.evaluation.pairs import compare_two
from diagnostics.evaluation.runs import RunSummary
from diagnostics.evaluation.saved_evaluation import list_outdated, read_evaluation
from diagnostics.figures.predictions import draw_runs
from diagnostics.plain import to_plain
from diagnostics.report import files as report_files
from diagnostics.report.comparison import name_folder, write_comparison
from diagnostics.report.folder import write_report
from diagnostics.report.terminal import format_runs
from diagnostics.tables.runs import make_paper_table
from diagnostics.tables.table import to_csv
from files import write_atomically
from tests.diagnostics.report.test_folder import LABELS, Page, network, recordings

PUBLISHED = {  # counts, McNemar, chi-square, phi, error dissimilarity of the paper's table
    "r34_r20": ((4869, 1884, 694, 2553), 548.38, 2283.92, 0.478, 0.336),
    "r50_r32": ((5186, 1879, 512, 2423), 780.41, 2646.67, 0.515, 0.330),
    "r18_r8": ((2919, 3430, 445, 3206), 2297.87, 1183.88, 0.344, 0.377),
}


def test_the_published_table_is_a_column_a_pair_with_every_digit_in_csv() -> None:
    runs = []
    for name, (counts, *_) in PUBLISHED.items():
        teacher = np.repeat([True, True, False, False], counts)
        student = np.repeat([True, False, True, False], counts)
        pair = compare_two("teacher", teacher, "two_stage", student)
        runs.append(RunSummary(name, "cifar100", 10_000, None, None, pair, *[None] * 6, [], []))  # type: ignore[call-arg]
    table = make_paper_table(runs)
    shown = {row[0][0]: [text for text, _ in row[1:]] for row in table.show_rows()}
    assert [column.heading for column in table.columns] == ["measure", *PUBLISHED]
    columns = list(zip(*(PUBLISHED[name] for name in PUBLISHED), strict=True))
    assert shown["McNemar corrected"] == [f"{value:.2f}" for value in columns[1]]
    assert shown["χ² Yates"] == [f"{value:.2f}" for value in columns[2]]
    assert shown["φ"] == [f"{value:.3f}" for value in columns[3]]
    assert shown["error dissimilarity (published as ESI)"] == [f"{value:.3f}" for value in columns[4]]
    assert shown["only the teacher right"] == ["1,884", "1,879", "3,430"]
    assert shown["student"] == ["n/a"] * 3 and "no teacher and student" in table.notes[0]
    lines = {line[0]: line for line in csv.reader(io.StringIO(to_csv(table)))}
    assert lines["measure"][1:4] == ["r34_r20", "r34_r20_low", "r34_r20_high"]
    assert float(lines["phi"][1]) == runs[0].pair.statistics.phi  # not the three digits that are shown
    assert float(lines["difference"][1]) == pytest.approx((694 - 1884) / 10_000)  # a fraction, as its key says


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """`evaluated("a", models)`: the folder of a run that holds its evaluation and nothing else."""
    monkeypatch.setattr(report_files, "to_bytes", lambda figure, kind: bytes(24))

    def make(name, models, test="same", **config):
        what = recordings(models)
        asked = {**what.context.config, **config}
        what = replace(what, context=replace(what.context, run=name, config=asked, test=test))
        write_report(what, tmp_path / name / "eval")
        write_atomically(tmp_path / name / "eval/predictions.npz", partial(recording_file.write_recording, what))
        return tmp_path / name

    return make


def seeds(kd: float, own: float):
    models = [network("teacher", right=0.9)]
    for number in range(2):
        suffix = f"/{number}" if number else ""
        models += [network(f"kd{suffix}", right=kd + 0.1 * number)]
        models += [network(f"two_stage{suffix}", right=own + 0.05 * number)]
    return models


def test_a_comparison_has_what_the_runs_have_and_tests_across_them(evaluated, tmp_path) -> None:
    first, second = evaluated("a", seeds(0.5, 0.6), seeds=[0, 1]), evaluated("b", seeds(0.6, 0.8), seeds=[0, 1, 2])
    runs = [read_evaluation(folder) for folder in (first, second)]
    compared = write_comparison(runs, tmp_path / name_folder(runs))
    for run, column in zip(runs, compared.runs, strict=True):
        (own,) = [pair for pair in run.report.pairs if (pair.a, pair.b) == ("teacher", "two_stage")]
        assert column.pair == own and column.representation == run.report.representation["two_stage"]
        assert (
            column.ensemble.members == ["teacher", "two_stage"] and column.others == run.report.seeds.comparisons
        )
    (pair,) = [row for row in compared.pairs if row.a == "a:two_stage/0"]
    assert pair.b == "b:two_stage/0" and pair.statistics.difference == pytest.approx(
        (np.arange(48) < 0.8 * 48).mean() - (np.arange(48) < 0.6 * 48).mean()
    )
    (over,) = [row for row in compared.seeds if row.a == "a:two_stage"]
    assert over.seeds == [0, 1] and over.result.n == 2
    assert compared.missing == ["b: no finished kd of seed 2", "b: no finished two_stage of seed 2"]
    folder = tmp_path / "compare-a-b"
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(to_plain(compared))
    )
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and "../a/eval/report.html" in page.links
    for link in page.links:
        target = link.removeprefix("#")
        assert target in page.anchors if link.startswith("#") else (folder / link).exists(), link
    assert {"paper.csv", "paper.tex", "pairs.csv"} <= {path.name for path in (folder / "tables").iterdir()}
    assert "What is missing" in text and "b: no finished kd of seed 2" in text
    told = format_runs(compared, folder)
    assert "missing: b: no finished kd of seed 2" in told and "McNemar corrected" in told


def test_other_test_images_are_not_tested_and_a_student_alone_is_a_column(evaluated, tmp_path) -> None:
    first = evaluated("a", [network("teacher", right=0.9), network("two_stage")])
    second = evaluated("b", [network("kd")], test="others")
    compared = write_comparison([read_evaluation(folder) for folder in (first, second)], tmp_path / "out")
    assert compared.pairs == [] and compared.notes == ["a and b have other test images: not tested"]
    assert compared.runs[1].student.name == "kd" and compared.runs[1].pair is None
    assert "b: no finished teacher" in compared.missing
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "a and b have other test images: not tested." in text and "no teacher and student" in text


def test_an_evaluation_that_does_not_hold_is_named(evaluated, tmp_path) -> None:
    folder = evaluated("a", [network("teacher", right=0.9), network("two_stage")])
    found = read_evaluation(folder)
    assert found.run == "a" and found.report.main == "two_stage"
    assert found.right["teacher"].tolist() == (np.arange(48) < 0.9 * len(LABELS)).tolist()
    other = evaluated("b", [network("teacher", right=0.9), network("kd")])
    for name in ("report.json", "report.sha256"):
        (other / "eval" / name).write_bytes((folder / "eval" / name).read_bytes())
    with pytest.raises(ValueError, match="are of different evaluations"):
        read_evaluation(other)
    content = bytearray((folder / "eval/predictions.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (folder / "eval/predictions.npz").write_bytes(content)
    with pytest.raises(ValueError, match="predictions.npz is damaged"):
        read_evaluation(folder)
    (folder / "eval/predictions.npz").unlink()
    with pytest.raises(ValueError, match="predictions.npz is missing"):
        read_evaluation(folder)


def test_a_model_that_was_trained_anew_or_came_since_makes_a_report_outdated() -> None:
    assert list_outdated({"kd": "1", "crd": "2"}, {"kd": "1"}) == []  # crd's folder may be gone, its numbers hold
    assert list_outdated({"kd": "1"}, {"kd": "3", "scratch": "4"}) == ["kd", "scratch"]


def test_long_names_become_a_digest_and_no_model_no_figure(evaluated) -> None:
    runs = [read_evaluation(evaluated(name * 60, [network("kd")])) for name in "ab"]
    assert len(name_folder(runs)) < 30 and name_folder(runs) != name_folder(runs[::-1])
    assert draw_runs([]) is None
