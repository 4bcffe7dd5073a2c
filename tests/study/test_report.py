"""Of study/report.py, and study/reported.py, study/answer.py, study/tables.py, study/headings.py,
study/study.html.j2."""

from __future__ import annotations

import csv
import html
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diagnostics.plain import to_plain
from diagnostics.report import files
from settings.study import Hypothesis
from study.answer import format_study, list_answers
from study.measurements import Measurement, RecordedRun, StudyContext
from study.report import write_study
from study.reported import StudyReport
from tests.study.small_study import make_measures

BIASED = {"shortcut.teacher": "biased", "shortcut.students": "biased"}
STATED = {"H1": Hypothesis(measure="following", first="crd_kd", second="two_stage", where=BIASED)}
NONE: dict[str, Hypothesis] = {}
METHODS = {"teacher": 0.6, "kd<1>": 0.3, "crd_kd": 0.4, "two_stage": 0.3}
FAITHFUL = dict.fromkeys(("fidelity_aligned", "fidelity_conflicting", "fidelity_followed", "also_followed"), 0.7)
ARMS = ("biased", "unbiased")
POINTS = [{"shortcut.teacher": t, "shortcut.students": s} for s, t in itertools.product(ARMS[::-1], ARMS[::-1])]


def make_records(
    seeds: int = 4, points: list[dict[str, str]] = POINTS, unbiased_gap: float = 0.01
) -> list[Measurement]:
    """Students of a biased teacher follow as METHODS says, others 0.05; who follows less is less accurate too."""
    rng, found = np.random.default_rng(0), []
    for point, seed, (method, rate) in itertools.product(points, range(seeds), METHODS.items()):
        biased = point.get("shortcut.teacher", "biased") == "biased"
        images = rng.binomial(9, rate if biased else 0.05, 100) / 9
        following = float(images.mean())
        unbiased = 0.5 + following / 2 + rng.normal(0, 0.001)
        gap = 0.5 if biased else unbiased_gap
        shares = {"aligned": 0.95, "conflicting": 0.95 - gap, "clean": 0.9, "cue_bias": 0.5, "flip_rate": 0.4}
        own = make_measures(following, unbiased, **shares, **({} if method == "teacher" else FAITHFUL))
        numbers = {"cue_decoding": 0.9, "label_decoding": 0.8, "cue_read": 0.99}
        arm = "biased" if biased else "unbiased"
        found.append(Measurement(point, seed, method, own, images, numbers, [2.0, *[1.0] * 10], arm))
    return found


def make_context(given: list[Measurement], stated: Mapping[str, Hypothesis] = STATED) -> StudyContext:
    """Return the context of `load_measurements`, with every run recorded."""
    runs = {json.dumps([record.point, record.seed]): record for record in given}
    network = {"arch": "resnet8"}
    return StudyContext(
        name="tiny",
        config={"name": "tiny", "data": {"source": "digits"}, "teacher": network, "student": network},
        points=[dict(point) for point in {json.dumps(r.point): r.point for r in given}.values()],
        seeds=sorted({record.seed for record in given}),
        hypotheses=stated,
        recorded=[
            RecordedRun(dict(r.point), r.seed, Path(f"run{number}")) for number, r in enumerate(runs.values())
        ],
    )


@pytest.fixture
def write(tmp_path, monkeypatch):
    """`write(records)`: the report and its page, with an empty picture in place of each drawn figure."""
    monkeypatch.setattr(files, "to_bytes", lambda figure, kind: bytes(24))

    def run(
        given: list[Measurement], stated: Mapping[str, Hypothesis] = STATED, **changes: Any
    ) -> tuple[StudyReport, str]:
        report = write_study(given, replace(make_context(given, stated), **changes), tmp_path)
        text = (tmp_path / "report.json").read_text(encoding="utf-8")
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON")) == to_plain(report)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        shown = page + format_study(report)
        assert not re.search(r">\s*(nan|inf|None|\[\])\s*<|[^a-z]nan[^a-z]", shown)
        return report, page

    return run


def read_table(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "tables" / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """Collects links and their targets, and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.pictures = 0
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links |= {found["href"].removeprefix("#")} if found.get("href") else set()
        self.anchors |= {found["id"]} if found.get("id") else set()
        self.pictures += tag == "img"
        self.open += [] if tag in ("meta", "img") else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_same_records_give_the_same_files(tmp_path) -> None:
    given = make_records(2)
    for name in ("first", "second"):
        write_study(given, make_context(given), tmp_path / name)
    written = {str(path.relative_to(tmp_path / "first")) for path in (tmp_path / "first").rglob("*.*")}
    assert all((tmp_path / "first" / f).read_bytes() == (tmp_path / "second" / f).read_bytes() for f in written)
    assert all((tmp_path / "first" / f).stat().st_size for f in written)
    text = (tmp_path / "first" / "report.html").read_text(encoding="utf-8")
    page, beside = Page(text), written - {"report.html"}
    assert page.open == [] and page.links - beside <= page.anchors and beside <= page.links
    assert text.count("<script") == 1 and "<script src" not in text and "http" not in text
    assert "kd&lt;1&gt;" in text and "kd<1>" not in text
    names = {"results_following", "results_unbiased", "results_clean", "hypothesis", "measures"}
    tables = names | {"inheritance", "comparisons"}
    expected = {f"tables/{name}.{kind}" for name in tables for kind in ("csv", "tex")}
    assert beside == expected | {"report.json", "figures/frontier.pdf", "figures/frontier.png"}
    assert page.pictures == 1


def test_main_tables_have_methods_by_points(write, tmp_path) -> None:
    report, page = write(make_records(), twins={"two_stage": "crd_kd"})
    rows = read_table(tmp_path, "results_following")
    assert [row["method"] for row in rows] == [*METHODS] and list(rows[0])[1:] == report.points
    summary = {(row.label, row.method): row.values["following"] for row in report.summary}
    label = "teacher biased, students biased"
    assert float(rows[2][label]) == summary[label, "crd_kd"].mean
    tex = (tmp_path / "tables" / "results_following.tex").read_text(encoding="utf-8")
    found, best = summary[label, "crd_kd"], min(summary[label, name].mean for name in METHODS)
    shown = f"{100 * found.mean:.1f} ± {50 * (found.high - found.low):.1f}"
    assert shown in page and re.search(rf"{100 * best:.1f} (±|\$\\pm\$) [\d.]+\*", tex)
    (line,) = [line for line in tex.splitlines() if line.startswith("teacher ")]
    assert "*" not in line and "caption{Cue following in percent, mean ± half of the 95" in tex


def test_the_best_is_the_highest_accuracy(write) -> None:
    best = re.findall(r"(\S+) +[^\n*]*\d\*", format_study(write(make_records(points=POINTS[-1:]))[0]))
    assert best[0] in ("two_stage", "kd<1>") and best[1] == "crd_kd"


def test_the_answer_comes_first(write) -> None:
    report, page = write(make_records())
    primary, beside, warning = list_answers(report)
    assert re.match(r"H1 \(equivalent within ±2 points\), higher: cue following of crd_kd minus that of", primary)
    label = "teacher biased, students biased"
    assert re.match(rf"crd_kd and two_stage at {label}: unbiased accuracy 69\.\d % and 6\d\.\d %; clean", beside)
    assert warning.startswith("two_stage follows the cue less, but") and "not mitigation" in warning
    assert report.points[0] == label  # the last in the grid
    assert page.index(html.escape(primary)) < page.index("Self-checks") < page.index("<table>")
    text = format_study(report)
    assert text.startswith(primary) and text.count("passed: ") == 3 and "FAILED" not in text


def test_each_hypothesis_has_a_sentence_and_a_row(write, tmp_path) -> None:
    higher = Hypothesis(measure="following", first="crd_kd", second="kd<1>", exceeds=0, where=BIASED)
    anywhere = Hypothesis(measure="following", first="crd_kd", second="two_stage", exceeds=0.5)
    report, page = write(make_records(), {**STATED, "H2": higher, "H3": anywhere})
    first, second, third, beside, *_ = list_answers(report)
    assert first.startswith("H1 (") and second.startswith("H2 (above 0 points), shown: cue following of crd_kd")
    over = "over 4 student seeds of one teacher"
    assert re.search(rf"is \d+\.\d points \(90 % \d+\.\d to \d+\.\d {over}, p [<=] 0\.\d+ by Holm\)\.$", second)
    assert third.startswith("H3 (above 50 points), contradicted: ") and third.endswith(
        "This is at teacher biased, students biased; of its 4 points: contradicted at 4."
    )
    assert (
        f"<p>{escape(third)}</p>" in page and f'<p class="more">{beside}</p>' in page
    )  # each as large as the first
    rows = read_table(tmp_path, "hypothesis")
    assert [row["name"] for row in rows] == ["H1", "H2", "H3", "H3", "H3", "H3"]
    claims = [(row["claim"], row["threshold"]) for row in rows[:3]]
    assert claims == [("equivalent", "0.02"), ("exceeds", "0.0"), ("exceeds", "0.5")]
    assert rows[2]["decision"] == "contradicted"


def test_tables_hold_the_numbers(write, tmp_path) -> None:
    write(make_records())
    rows = read_table(tmp_path, "measures")
    assert len(rows) == 4 * 4 and rows[0]["shortcut.teacher"] == "biased" and "worst_group" not in rows[0]
    own = [r.measures.following for r in make_records() if r.method == "kd<1>" and r.point == POINTS[-1]]
    (row,) = [r for r in rows[:4] if r["method"] == "kd<1>"]
    assert float(row["following"]) == pytest.approx(np.mean(own)) and float(row["cue_decoding"]) == 0.9
    assert float(row["excess_following"]) == pytest.approx(0.25, abs=0.03) and row["fidelity_aligned"] == "0.7"
    comparisons = read_table(tmp_path, "comparisons")
    assert list(comparisons[0])[2:5] == ["first", "second", "measure"] and len(comparisons) == 2 * 4 + 3
    assert len(read_table(tmp_path, "inheritance")) == 2 * 3


def test_points_are_named_and_missing_runs_listed(write, tmp_path) -> None:
    named = [
        replace(r, point={"name": f"with_{r.point['shortcut.teacher']}", **r.point})
        for r in make_records(points=POINTS[2:])
    ]
    named = [replace(r, label=r.point["name"]) for r in named]
    stated = {"H1": STATED["H1"].model_copy(update={"where": {"name": "with_biased"}})}
    whole = make_context(named, stated)
    changes = {
        "points": whole.points,
        "labels": ["with_unbiased", "with_biased"][::-1],
        "seeds": [*whole.seeds, 9],
    }
    report, _ = write(named, stated, **changes)
    assert report.points == ["with_biased", "with_unbiased"] and len(report.inheritance) == 3
    assert [row.label for row in report.hypotheses] == ["with_biased"]
    names = [row["name"] for row in read_table(tmp_path, "measures")]
    assert names == ["with_biased"] * 4 + ["with_unbiased"] * 4
    assert list(read_table(tmp_path, "results_clean")[0])[1:] == report.points
    assert report.missing == ["with_biased: seed 9 was not recorded", "with_unbiased: seed 9 was not recorded"]


def test_tries_are_chosen_on_held_out_images(write, tmp_path) -> None:
    worth = {"teacher": 0.0, "kd<1>": 0.4, "crd_kd": 0.2, "two_stage": 0.3}
    given = [
        replace(r, numbers={**r.numbers, "held_out_kl": worth[r.method], "held_out_unbiased": worth[r.method]})
        for r in make_records()
    ]
    report, page = write(given, tries={"rate": ["two_stage", "crd_kd", "kd<1>"]}, choose_by="held_out_kl")
    assert [row.blind.method for row in report.selection] == ["crd_kd"] * 4
    rows = read_table(tmp_path, "selection")
    assert len(rows) == 4 and rows[0]["tries"] == "two_stage, crd_kd, kd<1>"
    assert (rows[0]["oracle"], rows[0]["held_out_unbiased"], rows[0]["held_out_kl"]) == ("kd<1>", "0.4", "0.2")
    mean = [r.measures.following for r in given if r.method == "crd_kd" and r.point == POINTS[0]]
    assert float(rows[0]["blind_following"]) == pytest.approx(np.mean(mean))
    assert "never on test images" in page and "held-out KL, nats" in page
    assert "then the first listed" in page and "the smallest T²·KL" in page
    assert "held_out_kl" in read_table(tmp_path, "measures")[0]
    write(make_records())
    assert "held_out_kl" not in read_table(tmp_path, "measures")[0]
    assert not (tmp_path / "tables" / "selection.csv").exists()


def test_a_failed_check_is_told_everywhere(write) -> None:
    report, page = write(make_records(unbiased_gap=0.2))
    assert "Failed self-checks: teacher unbiased." in list_answers(report)[-1]
    assert "<strong>FAILED</strong>" in page and "Failed at" in page
    assert re.search(r"FAILED: .*at most 5 points: 8 of 8 fail, at worst 20.0 points", format_study(report))


def test_one_seed_has_no_intervals(write) -> None:
    report, page = write(make_records(1))
    assert (
        "points (1 student seed of one teacher)" in list_answers(report)[0]
        and page.count("One seed was recorded.") == 1
    )
    assert "One seed says nothing about the spread over seeds." in page


def test_missing_models_are_named(write) -> None:
    kept = [r for r in make_records(2) if r.method != "crd_kd" and (r.method, r.seed) != ("two_stage", 1)]
    whole = make_context(make_records(3))
    recorded = [place for place in whole.recorded if place.seed < 2]
    report, page = write(kept, points=whole.points, seeds=whole.seeds, recorded=recorded)
    assert "no seed has a value of both" in list_answers(report)[0]
    assert "teacher biased, students biased: seed 2 was not recorded" in report.missing
    assert "teacher biased, students biased: no two_stage of seed 1" in report.missing
    assert len(report.missing) == 8 and "8 missing" in page and "missing: 8" in format_study(report)


@pytest.mark.parametrize("points", [[{}], POINTS[-1:]], ids=["no grid", "one arm"])
def test_fewer_arms_have_no_inheritance(write, tmp_path, points) -> None:
    stated = {"H1": STATED["H1"].model_copy(update={"where": {}})}
    report, _ = write(make_records(2, points), stated)
    assert report.hypotheses and report.inheritance == []
    assert not (tmp_path / "tables" / "inheritance.csv").exists()
    assert all(part.passed is None for part in report.checks if part.name == "teacher_unbiased")


def test_no_answer_without_a_hypothesis_or_its_point(write) -> None:
    report, _ = write(make_records(2), NONE)
    assert list_answers(report)[0].startswith("No hypothesis was stated") and report.rest
    stated = {"H1": STATED["H1"].model_copy(update={"where": {"shortcut.teacher": "odd"}})}
    assert list_answers(write(make_records(2), stated)[0])[0].startswith("No answer. No model is at a point")


def test_a_study_without_a_cue_compares_accuracy(write, tmp_path) -> None:
    rng, points = np.random.default_rng(0), [{"student.arch": arch} for arch in ("resnet8", "resnet20")]
    rates = {"teacher": 0.95, "kd": 0.8, "two_stage": 0.9}
    given = [
        Measurement(point, seed, method, None, None, {"top1": rate + rng.normal(0, 0.003), "cue_read": None})
        for point, seed, (method, rate) in itertools.product(points, range(3), rates.items())
    ]
    report, page = write(given, NONE)
    assert "No cue was planted" in page and "cue following" not in page and "Inheritance" not in page
    links = {link for link in Page(page).links if "." not in link}
    assert Page(page).open == [] and links <= Page(page).anchors
    assert report.rest[0].sentence.startswith("test accuracy of kd minus that of two_stage is −")
    text = format_study(report)
    assert re.search(r"^method +arch resnet8 +arch resnet20$", text, re.MULTILINE)
    assert re.search(r"^two_stage +\d\d\.\d ± \d\.\d\* +\d\d\.\d ± \d\.\d\*$", text, re.MULTILINE)
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {"accuracy"}
    tables = {path.stem for path in (tmp_path / "tables").glob("*.csv")}
    assert tables == {"results_top1", "measures", "comparisons"}


def test_points_without_a_cue_have_their_own_measures(write, tmp_path) -> None:
    given = [
        replace(r, point={"shortcut.cue": "patch"}, numbers={"top1": 0.9})
        for r in make_records(points=POINTS[-1:])
    ]
    bare = [replace(r, point={"shortcut.cue": "none"}, measures=None, per_image_following=None) for r in given]
    bare = [replace(r, numbers={"top1": METHODS[r.method] + r.seed / 1000}) for r in bare]
    report, _ = write([*given, *bare], NONE)
    assert {(row.label, row.measure) for row in report.rest} == {("cue patch", "following"), ("cue none", "top1")}
    rows = {(row["shortcut.cue"], row["method"]): row for row in read_table(tmp_path, "measures")}
    row = rows["none", "crd_kd"]
    assert float(row["top1"]) == pytest.approx(0.4015) and not row["following"]


def test_a_second_report_removes_stale_files(write, tmp_path) -> None:
    write(make_records(1))
    for mine in ("figures/mine.png", "tables/mine.csv"):
        (tmp_path / mine).write_bytes(b"")
    write([replace(r, measures=None, numbers={"top1": 0.9}) for r in make_records(1, POINTS[-1:])])
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {"accuracy", "mine"}
    tables = {path.stem for path in (tmp_path / "tables").glob("*.csv")}
    assert "results_following" not in tables and "mine" in tables


def test_no_record_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="at least one measurement"):
        write_study([], make_context(make_records(1)), tmp_path)
    assert list(tmp_path.iterdir()) == []
