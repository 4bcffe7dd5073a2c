"""Of diagnostics/report/: folder.py, files.py, parts.py, page.py, verdict.py, sheet.py,
diagnostics/evaluation/pairs.py, diagnostics/evaluation/results.py,
diagnostics/tables/features.py, diagnostics/tables/models.py,
diagnostics/tables/catalogue.py, diagnostics/tables/reached.py, diagnostics/terms.py, diagnostics/report/sheet.py,
and diagnostics/figures/catalogue.py.
"""

from __future__ import annotations

import csv
import html
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dataset.repeats import Repeats
from diagnostics.budget import TrainingBudget
from diagnostics.cost import Cost, Latency
from diagnostics.differing import ShownImages, choose_positions
from diagnostics.evaluation.recording import Context, Meta, RecordedModel, Recording, list_first_classifiers
from diagnostics.evaluation.results import Report
from diagnostics.names import use_labels
from diagnostics.plain import to_plain
from diagnostics.report import files as report_files
from diagnostics.report.folder import write_report
from diagnostics.report.verdict import write_cautions, write_verdict
from diagnostics.tables.catalogue import make_tables
from training.usage import Usage

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
        "methods": {
            "kd": {"stage1": {"train": "all", "losses": {"kl": {"temperature": 4.0}}}},
            "two_stage": {
                "stage1": {"train": "features", "losses": {"crd": {"temperature": 0.1}}},
                "stage2": {"train": "last_block", "losses": {"kl": {"temperature": 4.0}}},
            },
        },
    },
    classes=["a<b", "$x_1$", "naïve", "猫"],
    fingerprint="0123",
    bfloat16=False,
    evaluated_on={"python": "3.12", "packages": {"torch": "2.9"}, "gpus": [], "git": {"commit": None}},
    trained_on=None,
)
TRAINING = TrainingBudget(
    job="kd",
    train="all",
    epochs=2,
    planned=2,
    images=20,
    balanced=False,
    batch_size=10,
    steps=4,
    passes=40,
    forward_only=0,
    frozen=False,
    teacher_passes=0,
    cached=False,
    parameters=100,
    optimizer="sgd 1e-05 constant",
    reported="last",
    losses={"ce": "1"},
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
    monkeypatch.setattr(report_files, "to_bytes", lambda figure, kind: bytes(24))

    def run(what: Recording) -> tuple[Report, str]:
        report = write_report(what, tmp_path)
        text = (tmp_path / "report.json").read_text(encoding="utf-8")
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON")) == to_plain(report)
        return report, (tmp_path / "report.html").read_text(encoding="utf-8")

    return run


class Page(HTMLParser):
    """Collects links, sources, anchors, headings, tags, alternative texts, and what is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.anchors: set[str] = set()
        self.open: list[str] = []
        self.levels: list[int] = []
        self.counts: Counter[str] = Counter()  # of tags, with the scope that some have
        self.alternatives: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        self.anchors |= {found["id"]} if "id" in found else set()
        self.open += [] if tag in ("meta", "img") else [tag]
        self.levels += [int(tag[1])] if tag in ("h1", "h2", "h3") else []
        self.counts[f"{tag} {found['scope']}" if "scope" in found else tag] += 1
        self.alternatives += [found["alt"] or ""] if tag == "img" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[Report, str, Path]:
    """A usual report, its page, and the folder that both are in, figures drawn."""
    folder = tmp_path_factory.mktemp("usual")
    report = write_report(pictured(recordings(usual())), folder)
    return report, (folder / "report.html").read_text(encoding="utf-8"), folder


def pictured(found: Recording) -> Recording:
    """The same with file names, and the pixels of the images that its sheets show."""
    positions = np.array(choose_positions(list_first_classifiers(found.models), found.labels))
    pixels = np.zeros((len(positions), 3, 8, 8), np.uint8)
    names = np.array([f"猫/{number}<.png" for number in range(len(found.labels))])
    return replace(found, names=names, shown=ShownImages(positions, pixels))


def usual() -> list[RecordedModel]:
    names = {"teacher": 0.9, "stage1": 0.5, "two_stage": 0.4, "kd": 0.8}
    return [network(name, right=right) for name, right in names.items()]


def test_a_page_that_needs_nothing_else(page) -> None:
    _, text, tmp_path = page
    page = Page(text)
    assert page.open == []
    inside, beside = ([link for link in page.links if link.startswith("#") is here] for here in (True, False))
    assert inside and {link.removeprefix("#") for link in inside} <= page.anchors
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert set(beside) == written - {
        "report.html",
        "report.sha256",
    }  # every file beside the page, and none that is not there
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert text.count("<script") == 1 and "<script src" not in text
    assert "http" not in text and "url(" not in text
    assert "a&lt;b" in text and "a<b" not in text
    figures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert figures == {path.stem for path in (tmp_path / "figures").glob("*.pdf")}
    assert len(figures) == text.count("<figure>") == 6
    tables = {path.stem for path in (tmp_path / "tables").glob("*.csv")}
    assert len(tables) == 23 and tables == {path.stem for path in (tmp_path / "tables").glob("*.tex")}
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_the_same_recordings_give_the_same_files(page, tmp_path) -> None:
    write_report(pictured(recordings(usual())), tmp_path)
    files = [path.relative_to(page[2]) for path in page[2].rglob("*.*")]
    assert len(files) > 40 and all((page[2] / f).read_bytes() == (tmp_path / f).read_bytes() for f in files)


def test_it_says_who_is_behind_and_who_is_ahead(write) -> None:
    behind, page = write(recordings(usual()))
    assert write_verdict(behind) == [
        "Best student: kd, 81.2 %.",
        "two_stage is behind teacher and kd.",
    ]
    assert "two_stage is behind teacher and kd." in page and "one training of each" in page
    ahead, _ = write(
        recordings([network("kd", right=0.3), network("crd", right=0.9), network("two_stage", right=0.9)])
    )
    assert write_verdict(ahead) == [
        "Best student: crd, 91.7 %. It is ahead of kd (p < 0.05 by Holm).",
        "two_stage is ahead of kd.",
        "two_stage shows no difference from crd.",
    ]


def test_an_interval_that_holms_p_does_not_confirm_shows_no_difference(write) -> None:
    report, page = write(recordings([network("teacher", right=1.0), network("two_stage", right=0.9)]))
    interval = report.pairs[0].interval
    assert interval.high < 0 and report.pairs[0].quoted_p > 0.05
    assert write_verdict(report)[-1] == "two_stage shows no difference from teacher."
    assert "p by Holm is not below 0.05" in page


def test_several_seeds(write) -> None:
    models = [network("teacher", right=0.9)]
    for number, (own, other) in enumerate([(0.5, 0.6), (0.5, 0.65), (0.55, 0.66)]):
        suffix = f"/{number}" if number else ""
        models += [network(f"two_stage{suffix}", right=own), network(f"kd{suffix}", right=other)]
    report, page = write(recordings(models))
    assert report.seeds.methods["kd"].summary.n == 3 and len(report.seeds.comparisons) == 1
    assert "over 3 student seeds of one teacher" in page and "Here: the first seed." in page and "kd/2" in page
    assert any("behind" in line and "kd" in line for line in write_verdict(report))
    assert "Against teacher the basis" in write_cautions(report)[-1]
    repeated = replace(report, context=replace(report.context, repeats=Repeats(labels=2)))
    assert write_cautions(repeated)[0] == "Equal pixels: 2 images under two labels."


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
        "No training of these students is on record.",
        "Two files of weights: what they were trained with is not on record.",
    ),
    "an earlier recording": (usual(), "How these models were trained is not in this recording"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_defined_has_a_word_on_why(write, case) -> None:
    models, *reasons = CASES[case]
    if case == "identical":
        models = [models[0], replace(models[1], meta=network("two_stage").meta)]
    _, page = write(recordings(models))
    assert all(why in page for why in reasons)
    assert not re.search(r">\s*(nan|inf|None)\s*<", page)


@pytest.mark.parametrize(
    "labels", [LABELS[:1], LABELS[:2], LABELS[:12], LABELS % 3], ids=["1", "2", "12", "missing"]
)
def test_few_images_and_a_missing_class(write, labels) -> None:
    report, page = write(recordings([network(n, labels) for n in ("teacher", "stage1", "two_stage")], labels))
    assert report.images == len(labels)
    assert "No test image of class" in page or len(labels) == 12
    assert ("Not drawn: It needs a teacher or a student, and 10 images." in page) == (len(labels) < 10)


def test_a_second_report_removes_figures_that_no_longer_hold(write, tmp_path: Path) -> None:
    write(recordings(usual()))
    mine = tmp_path / "figures" / "mine.png"
    mine.write_bytes(b"")
    _, page = write(recordings([network("teacher")]))
    left = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert "layers" not in left and {"accuracy", "mine"} <= left
    assert "Not drawn: There is no student with a teacher beside it." in page


def test_images_on_which_models_differ_have_name_class_and_both_answers(page, write) -> None:
    report, page, _ = page
    teacher, best = report.differing
    assert (teacher.a, teacher.b, best.a) == ("teacher", "two_stage", "kd")
    shown = teacher.kinds[0].images[0]
    assert page.count(f"Test image {shown.index}, 猫/{shown.index}&lt;.png, of class") >= 1
    assert f"teacher: {html.escape(shown.answer_a)} ({100 * shown.probability_a:.0f} %)" in page
    assert f"two_stage: {html.escape(shown.answer_b)} ({100 * shown.probability_b:.0f} %)" in page
    assert page.count('class="small"') == sum(len(kind.images) for pair in report.differing for kind in pair.kinds)
    assert "from before images were kept" not in page
    assert "from before images were kept" in write(recordings(usual()))[1]


def test_a_page_for_everyone(page) -> None:
    report, page, _ = page
    outline = Page(page)
    assert outline.levels[0] == 1 and max(np.diff(outline.levels)) == 1
    counts = outline.counts
    assert counts["main"] == 1 and counts["caption"] == counts["table"]
    assert counts["th row"] >= counts["tr"] - counts["table"] and "th" not in counts
    assert "prefers-color-scheme: dark" in page
    assert all(outline.alternatives) and len(set(outline.alternatives)) > 6
    told = next(text for text in outline.alternatives if text.startswith("teacher: top-1, % 91.7 ["))
    assert "two_stage: top-1, % 41.7 [" in told and "less teacher, points −50.0" in told
    assert any(f"ECE, % {100 * report.calibration['kd'].ece:.1f}" in text for text in outline.alternatives)
    assert not re.search(r"(?<![\w.-])-\d", re.sub(r"<(style|script|pre).*?</\1>|<[^>]*>", "", page, flags=re.S))


def test_one_seed_is_said_once(page) -> None:
    _, page, _ = page
    section = page.partition('<details id="seeds">')[2].partition("</section>")[0]
    assert section.count("One seed was trained: ") == 1 and "<table" not in section and "n/a" not in section


def test_every_term_is_shown_by_its_name_whoevers_it_is(write) -> None:
    models = usual()
    own = [{"epoch": e, "learning_rate": 0.1, "loss": 2.0, "mine_last": 1.5 - e, "test_top1": 0.5} for e in (1, 2)]
    earlier = {"own stage 1": [{"epoch": 1, "loss": 0.25, "distance": 0.25, "cosine_stage3": 0.1}]}
    trainings = [replace(TRAINING, job="own/stage1", epochs=1), replace(TRAINING, job="own/stage2")]
    meta = replace(network("own").meta, history=own, earlier=earlier, trainings=trainings)
    report, page = write(recordings([*models, replace(network("own"), meta=meta)]))
    assert report.curves["own"] == own and report.curves["own stage 1"] == earlier["own stage 1"]
    table = make_tables(report)["reached"]
    rows = {row[0].value: dict(zip((c.key for c in table.columns), row, strict=True)) for row in table.rows}
    assert rows["own"]["mine_last"].value == -0.5 and rows["own"]["epochs"].value == 2
    assert [rows["own stage 1"][name].value for name in ("distance", "cosine_stage3", "top1")] == [0.25, 0.1, None]
    assert set(rows) == {"stage1", "two_stage", "own", "own stage 1"}  # the others have nothing on record
    assert "mine_last −0.5000" in page and "distance 0.2500" in page


def test_the_last_staged_method_is_in_question_where_there_is_no_two_stage(write) -> None:
    stages = CONTEXT.config["methods"]["two_stage"]
    config = {**CONTEXT.config, "methods": {"kd": {"stage1": stages["stage2"]}, "own": stages}}
    names = {"teacher": 0.9, "kd": 0.8, "stage1": 0.5, "own": 0.4}
    recorded = recordings([network(name, right=right) for name, right in names.items()])
    report, page = write(replace(recorded, context=replace(recorded.context, config=config)))
    assert report.main == "own" and write_verdict(report)[1] == "own is behind teacher and kd."
    assert write_cautions(report)[0].startswith("Stage 1: cosine at the last tap 0.10")
    assert len(report.sentences) == 2 and not any("stage 1" in line for line in report.sentences)  # told once
    without, _ = write(recordings(usual()[:1] + usual()[3:]))
    assert without.main == "kd" and not any("Stage 1" in line for line in write_cautions(without))


def test_each_training_shows_what_it_took(write) -> None:
    times = Usage(10.0, 200.0, 3_000_000, "process"), Usage(2.5, 900.0, 2_000_000, "process")
    models = usual()
    trained = [replace(TRAINING, usage=usage) for usage in times]
    models[2] = replace(models[2], meta=replace(models[2].meta, trainings=trained))
    models[3] = replace(models[3], meta=replace(models[3].meta, trainings=[TRAINING]))
    report, page = write(recordings(models))
    rows = [[text for text, _ in row] for row in make_tables(report)["given"].show_rows()]
    assert [row[-3:] for row in rows if row[0] == "two_stage"] == [["10.0", "200", "3"], ["2.5", "900", "2"]]
    assert [row[-3:] for row in rows if row[0] == "kd"] == [["n/a"] * 3]
    assert "Resident in the whole process" in page and "energy was not measured" in page


def test_the_contrastive_bound_needs_what_it_is_made_of(page) -> None:
    assert page[0].information.nce_bound == {} and "No bound log K − L: it needs a teacher" in page[1]


def test_a_weak_teacher_opens_the_verdict(write) -> None:
    names = {"teacher": 0.4, "scratch": 0.9, "kd": 0.5}
    report, page = write(recordings([network(name, right=right) for name, right in names.items()]))
    assert (
        write_verdict(report)[0].startswith("teacher is 50 points below scratch: ")
        and "50 points below scratch" in page
    )
    able = {**names, "teacher": 0.95}
    assert (
        "below scratch"
        not in write_verdict(write(recordings([network(n, right=r) for n, r in able.items()]))[0])[0]
    )


def test_labels_replace_methods_for_readers_alone(write, tmp_path) -> None:
    with use_labels({"two_stage": "Ours & more", "kd": "KD"}):
        _, page = write(recordings(usual()))
    assert "Ours &amp; more is behind teacher and KD." in page and ">Ours &amp; more<" in page
    assert "Ours \\& more &" in (tmp_path / "tables/models.tex").read_text(encoding="utf-8")
    assert "two_stage," in (tmp_path / "tables/models.csv").read_text(encoding="utf-8")


def test_the_first_screen_is_short_and_the_rest_folded(page) -> None:
    _, page, _ = page
    first, _, rest = page.partition("</nav>")
    assert first.count("<table") == first.count("<figure") == 1 and first.count('<th scope="col"') == 5
    assert "<details" not in first and rest.count("<section>") == rest.count("<section>\n<details id=") == 15


def test_small_p_values_are_written_as_p(page) -> None:
    _, page, tmp_path = page
    assert "log₁₀" not in page and "log10" not in (tmp_path / "tables/pairs.csv").read_text(encoding="utf-8")


def test_csv_files_hold_numbers(page) -> None:
    words = {
        "model",
        "tap",
        "of",
        "a",
        "b",
        "quoted",
        "arch",
        "training",
        "losses",
        "optimizer",
        "reported",
        "class",
    }
    words |= {"members", "rule", "best", "method", "label", "answer"}
    for path in (page[2] / "tables").glob("*.csv"):
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            assert all(is_number(value) for key, value in row.items() if key not in words), path


def is_number(text: str) -> bool:
    return text == "" or float(text) == float(text)
