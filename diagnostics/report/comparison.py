"""From several runs' evaluations to a folder of their own: report.html, report.json, tables and figures."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diagnostics.evaluation.evaluated_models import list_run_models, record
from diagnostics.evaluation.runs import RunsCompared, compare_runs
from diagnostics.evaluation.saved_evaluation import Evaluation, read_evaluation
from diagnostics.figures.predictions import draw_runs
from diagnostics.names import show_name
from diagnostics.report.files import make_folder, write_figures, write_json, write_tables
from diagnostics.report.folder import write_report
from diagnostics.report.page import MOST_TOLD
from diagnostics.report.parts import embed_picture, load_template
from diagnostics.tables.runs import make_tables
from diagnostics.tables.table import Table, to_letter
from errors import UserError
from files import write_text
from training.experiment import Experiment

FIGURE = "accuracy"
LONGEST = 100  # characters of a folder's name, beyond which names of runs become a digest


def name_folder(runs: Sequence[Evaluation]) -> str:
    """`compare-A-B` of the runs' names, or a digest of them where these are long."""
    names = "-".join(run.run for run in runs)
    return f"compare-{names if len(names) <= LONGEST else hashlib.sha256(names.encode()).hexdigest()[:12]}"


def refuse_twice(paths: Sequence[Path]) -> None:
    """Raise `UserError` where two paths are one folder."""
    named = [path.resolve() for path in paths]
    twice = next((path for path in paths if named.count(path.resolve()) > 1), None)
    if twice is not None:
        raise UserError(f"--compare: {twice} is named twice, keep one of them")


def read_or_evaluate(path: Path, open_at: Callable[[Path], Experiment], quiet: bool) -> Evaluation:
    """Read the evaluation of a run; where it has none that holds, run its networks."""
    try:
        return read_evaluation(path)
    except ValueError as error:
        experiment, why = open_at(path), str(error)
    if not quiet:
        print(f"{why}: {path} is evaluated first", file=sys.stderr, flush=True)
    write_report(record(experiment, list_run_models(experiment), path / "eval"), path / "eval")
    return read_evaluation(path)


def write_comparison(runs: Sequence[Evaluation], folder: Path) -> RunsCompared:
    """Compare runs and write all of it to `folder`.

    Raises:
        ValueError: two runs of one name; nothing is written.
    """
    compared = compare_runs(runs)
    tables = make_tables(compared)
    write_json(compared, make_folder(folder) / "report.json")
    write_tables(tables, make_folder(folder / "tables"))
    drawn = {FIGURE: draw_runs(compared.models)}
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    pictures = write_figures(figures, make_folder(folder / "figures"), lambda name: name == FIGURE)
    links = {run.run: os.path.relpath(run.folder / "eval" / "report.html", folder) for run in runs}
    write_text(folder / "report.html", render_comparison(compared, tables, pictures, links))
    return compared


def render_comparison(
    compared: RunsCompared, tables: Mapping[str, Table], pictures: Mapping[str, bytes], links: Mapping[str, str]
) -> str:
    """Return the comparison as one HTML page that needs nothing but itself; links lead to the runs' own pages."""
    return load_template(Path(__file__).with_name("compare.html.j2")).render(
        compared=compared,
        answer=[row.sentence for row in compared.seeds] or [row.sentence for row in compared.pairs],
        links={run: Path(path).as_posix() for run, path in links.items()},
        tables=tables,
        leads=tables,
        pictures={name: embed_picture(picture) for name, picture in pictures.items()},
        words={FIGURE: tables["runs"].describe(MOST_TOLD)},
        label=show_name,
        names=", ".join(run.run for run in compared.runs),
        missing={FIGURE: "No model classifies."},
        letter=to_letter,
    )
