"""Tables of several runs: the paper's table with one column a run, and all their models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from diagnostics.evaluation.results import ModelAccuracy, TapSimilarity
from diagnostics.evaluation.runs import RunsCompared, RunSummary
from diagnostics.statistics import PairedStatistics
from diagnostics.tables import comparison as tables_comparison
from diagnostics.tables.table import (
    Cell,
    Column,
    Show,
    Table,
    decimals,
    difference_cell,
    grouped,
    percent,
    signed,
)

NO_PAIR = "This run has no teacher and student that were evaluated together."
NOT_IN_REPORT = "Not in this run's report."
Of = Callable[[RunSummary], Cell]
STATISTICS: Mapping[str, str] = {  # of a pair, beside its tests
    "phi": "φ",
    "error_separation_index": "ESI",
    "error_dissimilarity": "error dissimilarity (published as ESI)",
}
TESTS: Mapping[str, str] = {
    "mcnemar_corrected": "McNemar corrected",
    "mcnemar_exact": "McNemar exact",
    "chi_square_yates": "χ² Yates",
}


def all_tables(compared: RunsCompared) -> dict[str, Table]:
    """Every table of a comparison by name, in the order of its page."""
    pairs, seeds = tables_comparison.pairs(compared.pairs), tables_comparison.seed_comparisons(compared.seeds)
    tables = [
        paper(compared.runs),
        replace(
            pairs,
            caption=f"The same method in two runs, on the same images. {pairs.caption}",
            empty="No two runs share a method, a seed and their test images.",
        ),
        replace(
            seeds,
            caption="The same method in two runs, paired by seed.",
            empty="No two runs share a method, two seeds and their test images.",
        ),
        models(compared),
    ]
    return {table.name: table for table in tables}


def paper(runs: Sequence[RunSummary]) -> Table:
    """The paper's Table 3, teacher against student, one column a run, and what else their reports say of it."""
    columns = [Column("measure", "measure"), *(Column(run.run, run.run, interval=True) for run in runs)]
    rows = [[_named(key, heading), *(of(run) for run in runs)] for key, (heading, of) in _measures().items()]
    caption = "Teacher against student (first seed), one column a run, as each run's own report has it."
    return Table("paper", caption, columns, rows if runs else [], "No run.")


def _measures() -> dict[str, tuple[str, Of]]:
    """What a row shows, by its key in CSV files: its heading for readers, and the cell of a run."""
    return {
        "teacher": ("teacher", _model("teacher", lambda model: Cell(model.arch))),
        "student": ("student", _model("student", lambda model: Cell(model.arch))),
        "model": ("model", _model("student", lambda model: Cell(model.name))),
        "images": ("test images", lambda run: Cell(run.images, show=grouped)),
        "teacher_top1": ("teacher's top-1, %", _model("teacher", _top1)),
        "student_top1": ("student's top-1, %", _model("student", _top1)),
        "student_top1_over_seeds": ("student's top-1 over seeds, %", _over_seeds),
        "difference": ("student − teacher, points", _difference),
        **{f"count_{name}": (heading, _count(name)) for name, heading in COUNTS.items()},
        **_tests(),
        **{name: (heading, _statistic(name)) for name, heading in STATISTICS.items()},
        "cka_penultimate": (
            "linear CKA, penultimate tap",
            _similarity("penultimate", lambda tap: tap.linear.value),
        ),
        "cka_last": ("linear CKA, last tap", _similarity("last", lambda tap: tap.linear.value)),
        "cosine_last": ("cosine of projections, last tap", _similarity("last", lambda tap: tap.cosine)),
        "parameter_ratio": ("× parameters", _ratio("parameters")),
        "flop_ratio": ("× FLOPs", _ratio("flops")),
        "top1_gap": ("training − test top-1, points", lambda run: _part(run.gap, "top1_gap", signed(2))),
        "sd_of_changes": (
            "sd of changes by epoch, points",
            lambda run: _part(run.stability, "sd", percent(2)),
        ),
        "ensemble_gain": ("gain of averaging with its teacher, points", _ensemble),
    }


def _named(key: str, heading: str) -> Cell:
    """A key in CSV files, where shares stay fractions, and a heading for readers, who see percent."""
    return Cell(key, show=lambda _: heading)


def _difference(run: RunSummary) -> Cell:
    if run.pair is None:
        return _absent(NO_PAIR)
    return replace(difference_cell(run.pair.interval), show=signed(2))


COUNTS: Mapping[str, str] = {
    "a": "both right",
    "b": "only the teacher right",
    "c": "only the student right",
    "d": "both wrong",
}


def _absent(why: str) -> Cell:
    return Cell(None, note=why)


def _model(which: str, of: Callable[[ModelAccuracy], Cell]) -> Of:
    def cell(run: RunSummary) -> Cell:
        model = run.teacher if which == "teacher" else run.student
        return _absent(NO_PAIR) if model is None else of(model)

    return cell


def _top1(model: ModelAccuracy) -> Cell:
    return Cell(model.top1, model.low, model.high, show=percent(2))


def _over_seeds(run: RunSummary) -> Cell:
    if run.over_seeds is None:
        return _absent(NO_PAIR)
    found = run.over_seeds.summary
    return Cell(found.mean, found.low, found.high, found.notes.get("low", ""), percent(2))


def _of_pair(of: Callable[[PairedStatistics], Cell]) -> Of:
    return lambda run: _absent(NO_PAIR) if run.pair is None else of(run.pair.statistics)


def _count(name: str) -> Of:
    return _of_pair(lambda statistics: Cell(getattr(statistics.counts, name), show=grouped))


def _tests() -> dict[str, tuple[str, Of]]:
    """Statistic and log10 p of each test; the exact one has no statistic."""
    rows: dict[str, tuple[str, Of]] = {}
    for name, heading in TESTS.items():
        if name != "mcnemar_exact":
            rows[name] = heading, _test(name, "statistic")
        rows[f"{name}_log10_p"] = f"{heading}, log₁₀ p", _test(name, "log10_p")
    return rows


def _test(name: str, part: str) -> Of:
    def of(statistics: PairedStatistics) -> Cell:
        value = getattr(getattr(statistics, name), part)
        return Cell(value, note=statistics.notes.get(name, ""), show=decimals(2))

    return _of_pair(of)


def _statistic(name: str) -> Of:
    return _of_pair(
        lambda statistics: Cell(getattr(statistics, name), note=statistics.notes.get(name, ""), show=decimals(3))
    )


def _similarity(tap: str, of: Callable[[TapSimilarity], float | None]) -> Of:
    def cell(run: RunSummary) -> Cell:
        value = None if run.representation is None else of(getattr(run.representation, tap))
        return _absent(NOT_IN_REPORT) if value is None else Cell(value, show=decimals(3))

    return cell


def _ratio(name: str) -> Of:
    return lambda run: _part(run.cost, name, decimals(3))


def _part(section: object | None, name: str, show: Show) -> Cell:
    """A field of a part of a run's summary, which may lack it; its notes say why a value is not defined."""
    if section is None:
        return _absent(NOT_IN_REPORT)
    notes: Mapping[str, str] = getattr(section, "notes", {})
    return Cell(getattr(section, name), note=notes.get(name, ""), show=show)


def _ensemble(run: RunSummary) -> Cell:
    if run.ensemble is None:
        return _absent(NOT_IN_REPORT)
    return replace(difference_cell(run.ensemble.gain.interval), show=signed(2))


def models(compared: RunsCompared) -> Table:
    """Every model of every run."""
    columns = [
        Column("run", "run"),
        Column("model", "model"),
        Column("arch", "architecture"),
        Column("top1", "top-1, %", percent(2), interval=True),
    ]
    rows = [
        [Cell(row.run), Cell(row.accuracy.name), Cell(row.accuracy.arch), _top1(row.accuracy)]
        for row in compared.models
    ]
    return Table("runs", "All models of all runs, 95 % Wilson intervals.", columns, rows, "No model classifies.")
