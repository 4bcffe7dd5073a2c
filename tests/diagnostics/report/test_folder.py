"""Of diagnostics/report/folder.py, diagnostics/report/page.py, diagnostics/report/verdict.py,
diagnostics/pairs.py, diagnostics/results.py, diagnostics/tables/features.py, diagnostics/tables/models.py,
diagnostics/tables/catalogue.py and diagnostics/figures/catalogue.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from diagnostics.cost import Cost, Latency
from diagnostics.plain import to_plain
from diagnostics.recording import Context, Meta, RecordedModel, Recording
from diagnostics.report import folder as report_module
from diagnostics.report.folder import write_report
from diagnostics.report.verdict import verdict
from diagnostics.results import Report

CLASSES, WIDTH, TRAINED = 4, 6, np.tile(np.arange(4), 5)
LABELS = np.tile(np.arange(CLASSES), 12)
CONTEXT = Context(
    run="tiny",
    config={
        "name": "tiny",
        "seeds": [0],
        "data": {"source": "folder", "val_fraction": 0.0},
        "teacher": {"arch": "resnet8"},
        "student": {"arch": "resnet8"},
        "crd": {
            "objective": "infonce",
            "mode": "exact",
            "negatives": "bank",
            "num_negatives": 16,
            "batch_size": 8,
        },
    },
    classes=["a<b", "$x_1$", "naïve", "猫"],
    fingerprint="0123",
    bfloat16=False,
    evaluated_on={"python": "3.12", "packages": {"torch": "2.9"}, "gpus": [], "git": {"commit": None}},
    trained_on=None,
)
HISTORIES = {
    "stage1": [{"epoch": 1, "crd_last": 3.0, "cosine_last": 0.1, "cka_last": 0.2}],
    "two_stage": [{"epoch": e, "loss": 1.0, "top1": 0.5, "test_top1": 0.5, "test_loss": 1.0} for e in (1, 2)],
}


def network(name: str, labels: np.ndarray = LABELS, right: float = 0.7, history: bool = True) -> RecordedModel:
    """A network that is right on the first `right` of the images and calls the others the next class."""
    method, _, number = name.partition("/")
    rng = np.random.default_rng(len(name))
    n = len(labels)
    guess = np.where(np.arange(n) < right * n, labels, (labels + 1) % CLASSES)
    logits = 3 * np.eye(CLASSES)[guess] + rng.normal(size=(n, CLASSES)) / 5
    features = (np.eye(CLASSES, WIDTH)[labels] + rng.normal(size=(n, WIDTH))).astype(np.float16)
    probe = (np.eye(CLASSES, WIDTH)[TRAINED] + rng.normal(size=(len(TRAINED), WIDTH))).astype(np.float16)
    latency = Latency(batch=1, repeats=5, median_ms=0.5, iqr_ms=0.1, images_per_second=2000.0)
    meta = Meta(
        name,
        method,
        seed=None if method == "teacher" else int(number or 0),
        arch="resnet8",
        weights_hash=name,
        classifies=method != "stage1",
        detailed=not number,
        history=HISTORIES.get(method, []) if history else [],
        layers=["one", "two"],
        widths=[3, 4],
        cost=None if number else Cost(100, 1000, 500, [latency], "cpu", 1),
    )
    corrupted = np.broadcast_to(guess, (6, 5, n)).astype(np.int32)
    layers = rng.normal(size=(n, 7)).astype(np.float16)
    empty = np.empty((0, 0, 0), dtype=np.int32)
    return RecordedModel(
        meta, logits.astype(np.float32), features, features, layers, probe, empty if number else corrupted, {}
    )


def recordings(models: list[RecordedModel], labels: np.ndarray = LABELS) -> Recording:
    positions = np.arange(len(labels))
    return Recording(CONTEXT, labels, positions, positions, positions, TRAINED, models)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """`write(recordings)`: the report and its page, with an empty picture in place of each drawn figure."""
    monkeypatch.setattr(report_module, "to_bytes", lambda figure, kind: bytes(24))

    def run(what: Recording) -> tuple[Report, str]:
        report = write_report(what, tmp_path)
        text = (tmp_path / "report.json").read_text(encoding="utf-8")
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON")) == to_plain(report)
        return report, (tmp_path / "report.html").read_text(encoding="utf-8")

    return run


class Page(HTMLParser):
    """Collects what a page links to, names, and leaves open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.anchors: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        self.anchors |= {found["id"]} if "id" in found else set()
        self.open += [] if tag in ("meta", "img") else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def usual() -> list[RecordedModel]:
    names = {"teacher": 0.9, "stage1": 0.5, "two_stage": 0.4, "kd": 0.8}
    return [network(name, right=right) for name, right in names.items()]


def test_a_page_that_needs_nothing_else(tmp_path):
    write_report(recordings(usual()), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.links and {link.removeprefix("#") for link in page.links} <= page.anchors
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "<script" not in text and "http" not in text and "url(" not in text
    assert "a&lt;b" in text and "a<b" not in text
    figures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert figures == {path.stem for path in (tmp_path / "figures").glob("*.pdf")}
    assert len(page.sources) == len(figures) == 11
    tables = {path.stem for path in (tmp_path / "tables").glob("*.csv")}
    assert len(tables) == 18 and tables == {path.stem for path in (tmp_path / "tables").glob("*.tex")}
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_the_same_recordings_give_the_same_files(tmp_path):
    for folder in ("first", "second"):
        write_report(recordings(usual()[:3]), tmp_path / folder)
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*")]
    assert len(files) > 40
    assert all((tmp_path / "first" / f).read_bytes() == (tmp_path / "second" / f).read_bytes() for f in files)


def test_it_says_who_is_behind_and_who_is_ahead(write):
    behind, page = write(recordings(usual()))
    assert verdict(behind).answer == [
        "two_stage is behind teacher and kd.",
        "two_stage is ahead of no other model.",
    ]
    assert "two_stage is behind teacher and kd." in page and "one training of each" in page
    ahead, _ = write(
        recordings([network("kd", right=0.3), network("crd", right=0.9), network("two_stage", right=0.9)])
    )
    assert verdict(ahead).answer == [
        "two_stage is ahead of kd.",
        "No difference is shown between two_stage and crd.",
    ]


def test_an_interval_that_the_test_does_not_confirm_shows_no_difference(write):
    report, page = write(recordings([network("teacher", right=1.0), network("two_stage", right=0.9)]))
    interval = report.pairs[0].interval
    assert interval.high < 0 and report.pairs[0].quoted_p > 0.05
    assert verdict(report).answer[-1] == "No difference is shown between two_stage and teacher."
    assert "McNemar&#39;s test does not confirm it" in page


def test_several_seeds(write):
    models = [network("teacher", right=0.9)]
    for number, (own, other) in enumerate([(0.5, 0.6), (0.5, 0.65), (0.55, 0.66)]):
        suffix = f"/{number}" if number else ""
        models += [network(f"two_stage{suffix}", right=own), network(f"kd{suffix}", right=other)]
    report, page = write(recordings(models))
    assert report.seeds.methods["kd"].summary.n == 3 and len(report.seeds.comparisons) == 1
    assert "over 3 seeds" in page and "Here: the first seed." in page and "kd/2" in page
    assert any("behind" in line and "kd" in line for line in verdict(report).answer)
    assert "Against teacher the basis" in verdict(report).caution[-1]


CASES = {
    "always right": (usual()[1:] + [network("teacher", right=1.0)], "The teacher makes no error on these images."),
    "identical": (
        [network("teacher"), network("teacher")],
        "no image is right for one model and wrong for the other",
    ),
    "teacher alone": ([network("teacher")], "There is one model: nothing to compare."),
    "no teacher": (usual()[1:], "There is no teacher among these models."),
    "stage 1 alone": ([network("stage1")], "No model classifies."),
    "two files": (
        [network("teacher", history=False), network("student", history=False)],
        "No stage 1 of these models is on record.",
    ),
    "an earlier recording": (usual(), "How these models were trained is not in this recording"),
    "two files' trainings": (
        [network("teacher", history=False), network("student", history=False)],
        "Two files of weights: what they were trained with is not on record.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_defined_has_a_word_on_why(write, case):
    models, why = CASES[case]
    if case == "identical":
        models = [models[0], replace(models[1], meta=network("two_stage").meta)]
    _, page = write(recordings(models))
    assert why in page
    assert not re.search(r">\s*(nan|inf|None)\s*<", page)


@pytest.mark.parametrize(
    "labels", [LABELS[:1], LABELS[:2], LABELS[:12], LABELS % 3], ids=["1", "2", "12", "missing"]
)
def test_few_images_and_a_missing_class(write, labels):
    report, page = write(recordings([network(n, labels) for n in ("teacher", "stage1", "two_stage")], labels))
    assert report.images == len(labels)
    assert "No test image of class" in page or len(labels) == 12
    assert ("Fewer than 10 images: no map." in page) == (len(labels) < 10)


def test_a_second_report_removes_figures_that_no_longer_hold(write, tmp_path: Path):
    write(recordings(usual()))
    mine = tmp_path / "figures" / "mine.png"
    mine.write_bytes(b"")
    _, page = write(recordings([network("teacher")]))
    left = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert "contingency" not in left and {"accuracy", "mine"} <= left
    assert "Not drawn: There is no student among these models." in page


def test_the_contrastive_bound_needs_what_it_is_made_of(write):
    report, page = write(recordings(usual()))
    assert report.information.nce_bound == {} and "No bound log K − L: it needs a teacher" in page
