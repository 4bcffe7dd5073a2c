"""All tables of the report, in its order."""

from __future__ import annotations

from diagnostics.confusion import MOST_CONFUSED
from diagnostics.evaluation.results import Report
from diagnostics.tables import claims as tables_claims
from diagnostics.tables import comparison as tables_comparison
from diagnostics.tables import features as tables_features
from diagnostics.tables import looks as tables_looks
from diagnostics.tables import predictions as tables_predictions
from diagnostics.tables.given import given
from diagnostics.tables.models import models
from diagnostics.tables.reached import reached
from diagnostics.tables.table import Table, to_text

ONE_SEED_MORE = (
    "One seed was trained. Several (seeds: [0, 1, 2] in the config) would show how much training again changes "
    "the result: the mean of each method with its spread and interval, and the method in question against each "
    "other one by paired tests over seeds."
)


def all_tables(report: Report) -> dict[str, Table]:
    """Every table by name, in the order of the report; one without rows says why."""
    tables = [
        models(report),
        given(report.given),
        tables_comparison.pairs(report.pairs),
        tables_comparison.tests(report.pairs),
        tables_comparison.errors(report.pairs),
        tables_comparison.seeds(report.seeds.methods),
        tables_comparison.seed_comparisons(report.seeds.comparisons),
        tables_looks.confusions(report.confusions, MOST_CONFUSED),
        tables_looks.classes(report.classes),
        tables_predictions.fidelity(report.fidelity),
        tables_features.representation(report.representation),
        tables_features.information(report.information),
        tables_features.geometry(report.geometry),
        tables_predictions.calibration(report.calibration),
        tables_predictions.robustness(report.robustness),
        tables_predictions.cost(report.cost),
        tables_claims.ensembles(report.claims.ensembles),
        tables_claims.generalisation(report.claims.generalisation),
        tables_claims.variances(report.claims.variances),
        tables_claims.stability(report.claims.stability),
        reached(report.curves),
    ]
    return {table.name: table for table in tables}


def summary_text(report: Report) -> str:
    """Models, pairs and seeds for the terminal, and the sentences."""
    tables = all_tables(report)
    names = ["models", "given", "pairs", "tests", "errors"]
    over_seeds = ["seeds", "seed_comparisons"] if several_seeds(report) else []
    shown = [to_text(tables[name]) for name in [*names, *over_seeds]]
    even = report.given.sentences if report.given else []
    alone = [] if over_seeds or not report.seeds.methods else [ONE_SEED_MORE]
    return "\n".join([*shown, *report.sentences, *even, *alone]) + "\n"


def several_seeds(report: Report) -> bool:
    """Whether a method was trained with more than one seed."""
    return any(method.summary.n > 1 for method in report.seeds.methods.values())
