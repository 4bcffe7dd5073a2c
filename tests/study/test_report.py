"""Of study/report.py, and study/reported.py, study/answer.py, study/tables.py, study/words.py."""

from __future__ import annotations

import csv
import html
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diagnostics.plain import to_plain
from diagnostics.report import files
from diagnostics.shortcut.measures import Measures
from settings.study import Hypothesis
from study.answer import answer, study_text
from study.figures import Examples
from study.measurements import Measurement, RecordedRun, StudyContext
from study.report import places, write_study
from study.reported import StudyReport

BIASED = {"shortcut.teacher": "biased", "shortcut.students": "biased"}
STATED = {"H1": Hypothesis(measure="following", first="crd_kd", second="two_stage", where=BIASED)}
NONE: dict[str, Hypothesis] = {}


METHODS = {"teacher": 0.6, "kd<1>": 0.3, "crd_kd": 0.4, "two_stage": 0.3}


ARMS = ("biased", "unbiased")


POINTS = [{"shortcut.teacher": t, "shortcut.students": s} for s, t in itertools.product(ARMS[::-1], ARMS[::-1])]


EXAMPLES = Examples(
    np.zeros((2, 3, 8, 8), np.uint8), ["$3$", "4"], {"teacher": ["7", "7"], "two_stage": ["7", "8"]}, "seed 0"
)


def measured(following: float, unbiased: float, gap: float, is_teacher: bool) -> Measures:
    shares = {"aligned": 0.95, "conflicting": 0.95 - gap, "clean": 0.9, "cue_bias": 0.5, "flip_rate": 0.4}
    names = ("fidelity_aligned", "fidelity_conflicting", "fidelity_followed", "also_followed")
    faithful = dict.fromkeys(names, None if is_teacher else 0.7)
    notes = {"worst_group": "Too few."} | (dict.fromkeys(names, "No teacher is given.") if is_teacher else {})
    return Measures(
        images=40,
        shows=4,
        following=following,
        unbiased=unbiased,
        worst_group=None,
        **shares,
        **faithful,
        notes=notes,
    )


def records(
    seeds: int = 4, points: list[dict[str, str]] = POINTS, unbiased_gap: float = 0.01
) -> list[Measurement]:
    """Students of a biased teacher follow as METHODS says, others 0.05; who follows less is less accurate too."""
    rng, found = np.random.default_rng(0), []
    for point, seed, (method, rate) in itertools.product(points, range(seeds), METHODS.items()):
        biased = point.get("shortcut.teacher", "biased") == "biased"
        images = rng.binomial(9, rate if biased else 0.05, 100) / 9
        following = float(images.mean())
        unbiased = 0.5 + following / 2 + rng.normal(0, 0.001)
        own = measured(following, unbiased, 0.5 if biased else unbiased_gap, method == "teacher")
        numbers = {"cue_decoding": 0.9, "label_decoding": 0.8, "cue_read": 0.99}
        arm = "biased" if biased else "unbiased"
        found.append(Measurement(point, seed, method, own, images, numbers, [2.0, *[1.0] * 10], arm))
    return found


def context(given: list[Measurement], stated: Mapping[str, Hypothesis] = STATED) -> StudyContext:
    """As `load_measurements` gives it, with every run recorded."""
    runs = {json.dumps([record.point, record.seed]): record for record in given}
    network = {"arch": "resnet8"}
    return StudyContext(
        name="tiny",
        config={"name": "tiny", "data": {"source": "digits"}, "teacher": network, "student": network},
        points=[dict(point) for point in {json.dumps(r.point): r.point for r in given}.values()],
        seeds=sorted({record.seed for record in given}),
        hypotheses=stated,
        recorded=[
            RecordedRun(dict(r.point), r.seed, Path(f"run{number}"), Path())
            for number, r in enumerate(runs.values())
        ],
    )


@pytest.fixture
def write(tmp_path, monkeypatch):
    """`write(records)`: the report and its page, with an empty picture in place of each drawn figure."""
    monkeypatch.setattr(files, "to_bytes", lambda figure, kind: bytes(24))

    def run(
        given: list[Measurement], stated: Mapping[str, Hypothesis] = STATED, **changes: Any
    ) -> tuple[StudyReport, str]:
        report = write_study(given, replace(context(given, stated), **changes), tmp_path)
        text = (tmp_path / "report.json").read_text(encoding="utf-8")
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON")) == to_plain(report)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert not re.search(r">\s*(nan|inf|None|\[\])\s*<|[^a-z]nan[^a-z]", page + study_text(report))
        return report, page

    return run


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


def test_the_same_records_give_the_same_files_and_a_page_that_needs_nothing_else(tmp_path):
    for name in ("first", "second"):
        write_study(records(2), context(records(2)), tmp_path / name, EXAMPLES)
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*")]
    assert all((tmp_path / "first" / f).read_bytes() == (tmp_path / "second" / f).read_bytes() for f in files)
    text = (tmp_path / "first" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    written = {str(path.relative_to(tmp_path / "first")) for path in (tmp_path / "first").rglob("*.*")}
    beside = written - {"report.html"}
    assert page.open == [] and page.links - beside <= page.anchors and beside <= page.links
    assert text.count("<script") == 1 and "<script src" not in text
    assert "http" not in text and "kd&lt;1&gt;" in text and "kd<1>" not in text
    figures = {path.stem for path in (tmp_path / "first" / "figures").glob("*.png")}
    assert figures == {path.stem for path in (tmp_path / "first" / "figures").glob("*.pdf")}
    assert {name.split("-")[0] for name in figures} == {"frontier", "following", "inheritance", "examples"}
    assert len(figures) == 7 and page.pictures == 6 + len(EXAMPLES.labels)  # the examples are images of the page
    tables = {path.stem for path in (tmp_path / "first" / "tables").glob("*.csv")}
    assert {
        "measures",
        "measures_first",
        "fidelity",
        "inheritance",
        "comparisons",
        "hypothesis",
        "checks",
    } <= tables
    assert tables == {path.stem for path in (tmp_path / "first" / "tables").glob("*.tex")}


def test_the_answer_comes_first_with_what_belongs_beside_it(write):
    report, page = write(records())
    primary, beside, warning = answer(report)
    assert re.match(
        r"H1, higher: cue following is \d+\.\d points higher with crd_kd than with two_stage, 95 % ", primary
    )
    assert re.search(r"unbiased accuracy 69\.\d % \(crd_kd\) and 6\d\.\d % \(two_stage\), difference", beside)
    assert (
        "Beside H1: unbiased" in beside
        and "clean accuracy 90.0 % (crd_kd) and 90.0 % (two_stage), difference 0.0 points" in beside
    )
    assert warning.startswith("two_stage follows the cue less, but") and "not mitigation" in warning
    assert report.points[0] == "teacher biased, students biased"  # the last in the grid
    assert page.index(html.escape(primary)) < page.index("Self-checks") < page.index("<table>")
    text = study_text(report)
    assert text.startswith(primary) and "Teacher biased, students biased. Mean over seeds" in text
    assert text.count("passed: ") == 4 and "FAILED" not in text


def test_each_hypothesis_has_a_sentence_and_a_row(write, tmp_path):
    higher = Hypothesis(measure="following", first="crd_kd", second="kd<1>", exceeds=0, where=BIASED)
    anywhere = Hypothesis(measure="following", first="crd_kd", second="two_stage", exceeds=0.5)
    report, page = write(records(), {**STATED, "H2": higher, "H3": anywhere})
    first, second, third, beside, other, *_ = answer(report)
    assert first.startswith("H1, higher: ") and first.endswith("by Holm for a difference.")
    assert re.match(r"H2, shown: that cue following of crd_kd minus that of kd<1> is above 0 points; ", second)
    assert re.search(r"is \d+\.\d points, 95 % \d+\.\d to \d+\.\d, over 4 seeds, p [<=] 0\.\d+ by Holm\.$", second)
    assert third.startswith("H3, contradicted: that ") and third.endswith(
        "This is at teacher biased, students biased; of its 4 points: contradicted at 4."
    )
    assert f"<p>{third}</p>" in page and f'<p class="more">{beside}</p>' in page  # each as large as the first
    assert beside.startswith("Beside H1, H3: unbiased") and other.startswith("Beside H2: unbiased")
    with open(tmp_path / "tables" / "hypothesis.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["H1", "H2", "H3", "H3", "H3", "H3"]
    assert [(row["claim"], row["threshold"]) for row in rows[:3]] == [
        ("equivalent", "0.02"),
        ("exceeds", "0.0"),
        ("exceeds", "0.5"),
    ]
    assert rows[2]["decision"] == "contradicted" and page.index("H3, contradicted") < page.index("Stated before")


def test_tables_hold_the_numbers(write, tmp_path):
    report, _ = write(records())
    with open(tmp_path / "tables" / "measures.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 4 and rows[0]["shortcut.teacher"] == "biased"
    expected = [r.measures.following for r in records() if r.method == "kd<1>" and r.point == POINTS[-1]]
    (row,) = [r for r in rows[:4] if r["method"] == "kd<1>"]
    assert float(row["following"]) == pytest.approx(np.mean(expected)) and row["worst_group"] == ""
    assert float(row["excess_following"]) == pytest.approx(0.25, abs=0.03) and float(row["cue_decoding"]) == 0.9
    first = (tmp_path / "tables" / "comparisons_first.csv").read_text(encoding="utf-8").splitlines()
    assert len(first) == 1 + 2 and first[0].startswith("first,second,measure,seeds,difference,")
    assert len((tmp_path / "tables" / "inheritance.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 3


def test_places_join_the_arms_of_the_teacher(write):
    report, _ = write(records())
    first, second = places(report)
    assert (first.label, second.label) == ("students biased", "students unbiased")
    assert list(first.arms) == ["biased", "unbiased"] and len(first.inheritance) == 3
    assert first.name("following") == "following-1-students-biased"


def test_named_points_are_called_so_and_their_arms_belong_together(write, tmp_path):
    named = [
        replace(r, point={"name": f"with_{r.point['shortcut.teacher']}", **r.point})
        for r in records(points=POINTS[2:])
    ]
    named = [replace(r, label=r.point["name"]) for r in named]
    stated = {"H1": STATED["H1"].model_copy(update={"where": {"name": "with_biased"}})}
    report, page = write(named, stated)
    assert report.points == ["with_biased", "with_unbiased"] and [row.label for row in report.hypotheses] == [
        "with_biased"
    ]
    (place,) = places(report)
    assert place.label == "with_biased and with_unbiased" and list(place.arms) == ["biased", "unbiased"]
    assert len(report.inheritance) == len(place.inheritance) == 3 and "<summary>with_unbiased</summary>" in page
    with open(tmp_path / "tables" / "measures.csv", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["with_biased"] * 4 + ["with_unbiased"] * 4
    labels = ["with_unbiased", "with_biased"]
    whole = context(named, stated)
    report, _ = write(named, stated, points=whole.points, labels=labels[::-1], seeds=[*whole.seeds, 9])
    assert report.missing == ["with_biased: seed 9 was not recorded", "with_unbiased: seed 9 was not recorded"]


def test_tries_are_chosen_on_held_out_images_and_shown(write, tmp_path):
    worth = {"teacher": 0.0, "kd<1>": 0.4, "crd_kd": 0.2, "two_stage": 0.3}
    given = [
        replace(r, numbers={**r.numbers, "held_out_kl": worth[r.method], "held_out_unbiased": worth[r.method]})
        for r in records()
    ]
    report, page = write(given, tries={"rate": ["two_stage", "crd_kd", "kd<1>"]})
    assert [row.blind.method for row in report.selection] == ["crd_kd"] * 4
    with open(tmp_path / "tables" / "selection.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and rows[0]["tries"] == "two_stage, crd_kd, kd<1>"
    assert (rows[0]["oracle"], rows[0]["held_out_unbiased"], rows[0]["held_out_kl"]) == ("kd<1>", "0.4", "0.2")
    mean = [r.measures.following for r in given if r.method == "crd_kd" and r.point == POINTS[0]]
    assert float(rows[0]["blind_following"]) == pytest.approx(np.mean(mean))
    assert page.count("no test image has a part in it") >= 4 and "held-out KL, nats" in page
    assert "held-out KL" not in study_text(report)  # of measures, which a terminal shows in brief
    with open(tmp_path / "tables" / "measures.csv", encoding="utf-8") as file:
        assert "held_out_kl" in next(csv.reader(file))
    write(records())
    with open(tmp_path / "tables" / "measures.csv", encoding="utf-8") as file:
        assert "held_out_kl" not in next(csv.reader(file))


def test_the_frontier_stands_first_and_says_its_numbers(write):
    given = records()
    _, page = write(given, twins={"two_stage": "crd_kd"}, end_to_end=frozenset(["kd<1>", "crd_kd"]))
    alternatives = re.findall(r'alt="([^"]*)"', page)
    assert "its end-to-end twin" in page
    mean = np.mean([r.measures.following for r in given if r.method == "crd_kd" and r.point == POINTS[-1]])
    assert "With a biased teacher: teacher follows on" in alternatives[0]
    assert f"crd_kd follows on {100 * mean:.1f} % (" in alternatives[0]
    assert alternatives[1].startswith("cue following with a biased teacher: teacher ") and all(alternatives)
    assert f"crd_kd {100 * mean:.1f} % (" in alternatives[1]


def test_one_seed_is_said_once(write):
    _, page = write(records(1))
    assert page.count("One seed was recorded.") == 1 and ">n/a<" not in page.partition('id="comparisons"')[2]


def test_a_failed_check_is_told_everywhere(write):
    report, page = write(records(unbiased_gap=0.2))
    assert "Self-checks that failed: teacher unbiased." in answer(report)[-1]
    assert "<strong>FAILED</strong>" in page and "Where it failed" in page
    assert re.search(r"FAILED: .*at most 5 points: 8 of 8 fail, at worst 20.0 points", study_text(report))


def test_one_seed_has_no_intervals_and_says_why(write):
    report, page = write(records(1))
    assert "over one seed, which gives no interval" in answer(report)[0]
    assert "One seed says nothing about the spread over seeds." in page


def test_what_is_missing_is_named(write):
    kept = [r for r in records(2) if r.method != "crd_kd" and (r.method, r.seed) != ("two_stage", 1)]
    whole = context(records(3))
    recorded = [place for place in whole.recorded if place.seed < 2]
    report, page = write(kept, points=whole.points, seeds=whole.seeds, recorded=recorded)
    assert "no seed has a value of both" in answer(report)[0]
    assert "teacher biased, students biased: seed 2 was not recorded" in report.missing
    assert "teacher biased, students biased: no two_stage of seed 1" in report.missing
    assert len(report.missing) == 8 and "8 missing" in page and "missing: 8" in study_text(report)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([{}], "No teacher and student were recorded in both arms of shortcut.teacher."),
        (POINTS[-1:], "Not recorded with random cues for teacher and students"),
    ],
    ids=["no grid", "one arm"],
)
def test_fewer_arms(write, points, said):
    stated = {"H1": STATED["H1"].model_copy(update={"where": {}})}
    report, page = write(records(2, points), stated)
    assert said in page and "Example images were not asked for." in page and report.hypotheses
    assert all(part.passed is None for part in report.checks if part.name == "teacher_unbiased")


def test_without_a_hypothesis_or_a_point_for_it(write):
    report, _ = write(records(2), NONE)
    assert answer(report)[0].startswith("No hypothesis was stated") and report.rest
    report, _ = write(records(2), {"H1": STATED["H1"].model_copy(update={"where": {"shortcut.teacher": "odd"}})})
    assert answer(report)[0].startswith("No primary answer. No model is at a point")


def test_a_study_without_a_cue(write, tmp_path):
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
    assert "points lower with kd than with two_stage" in report.rest[0].sentence
    text = study_text(report)
    assert "test top-1, %" in text and text.count("resnet20") == 3
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert names == {"accuracy-1-arch-resnet8", "accuracy-2-arch-resnet20"}


def test_points_with_and_without_a_cue_have_their_own_measures(write, tmp_path):
    given = [
        replace(r, point={"shortcut.cue": "patch"}, numbers={"top1": 0.9}) for r in records(points=POINTS[-1:])
    ]
    bare = [replace(r, point={"shortcut.cue": "none"}, measures=None, per_image_following=None) for r in given]
    bare = [replace(r, numbers={"top1": METHODS[r.method] + r.seed / 1000}) for r in bare]
    report, _ = write([*given, *bare], NONE)
    assert {(row.label, row.measure) for row in report.rest} == {("cue patch", "following"), ("cue none", "top1")}
    with open(tmp_path / "tables" / "measures.csv", encoding="utf-8") as file:
        rows = {(row["shortcut.cue"], row["method"]): row for row in csv.DictReader(file)}
    assert (
        float(rows["none", "crd_kd"]["top1"]) == pytest.approx(0.4015) and not rows["none", "crd_kd"]["following"]
    )


def test_a_second_report_removes_figures_that_no_longer_hold(write, tmp_path):
    write(records(1))
    mine = tmp_path / "figures" / "mine.png"
    mine.write_bytes(b"")
    write(records(1, POINTS[-1:]))
    left = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert left == {"frontier-1-students-biased", "following-1-students-biased", "mine"}


def test_no_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one measurement"):
        write_study([], context(records(1)), tmp_path)
    assert list(tmp_path.iterdir()) == []
