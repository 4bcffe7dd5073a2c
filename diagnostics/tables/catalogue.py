"""All tables of the report, in its order."""

from __future__ import annotations

from diagnostics.results import Report
from diagnostics.tables import claims as tables_claims
from diagnostics.tables import comparison as tables_comparison
from diagnostics.tables import features as tables_features
from diagnostics.tables import predictions as tables_predictions
from diagnostics.tables.given import given
from diagnostics.tables.models import models
from diagnostics.tables.table import Table, to_text


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
    ]
    return {table.name: table for table in tables}


def summary_text(report: Report) -> str:
    """Models, pairs and seeds for the terminal, and the sentences."""
    tables = all_tables(report)
    shown = [tables[name] for name in ("models", "given", "pairs", "tests", "errors", "seeds", "seed_comparisons")]
    even = report.given.sentences if report.given else []
    return "\n".join([*(to_text(table) for table in shown), *report.sentences, *even]) + "\n"
