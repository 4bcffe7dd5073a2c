"""All tables of the report, in its order."""

from __future__ import annotations

from diagnostics.evaluation.results import Report
from diagnostics.tables import comparison, features, models, predictions, probes
from diagnostics.tables.table import Table, to_text


def make_tables(report: Report) -> dict[str, Table]:
    """Return every table by name, in the order of the report; one without rows says why."""
    seeds, claims = report.seeds, report.claims
    tables = [
        models.make_models_table(report.models, seeds.methods, report.cost, report.images),
        models.make_trainings_table(report.given),
        comparison.make_pairs_table(report.pairs),
        comparison.make_tests_table(report.pairs),
        comparison.make_errors_table(report.pairs),
        comparison.make_seeds_table(seeds.methods, report.models),
        comparison.make_seed_pairs_table(seeds.comparisons),
        predictions.make_confusions_table(report.confusions),
        predictions.make_classes_table(report.classes),
        predictions.make_fidelity_table(report.fidelity),
        features.make_representation_table(report.representation),
        features.make_information_table(report.information),
        features.make_geometry_table(report.geometry),
        probes.make_probe_table(report.probes or []),
        probes.make_probe_pairs_table(report.probes or []),
        predictions.make_calibration_table(report.calibration),
        predictions.make_robustness_table(report.robustness),
        models.make_cost_table(report.cost, report.models),
        comparison.make_ensembles_table(claims.ensembles),
        predictions.make_generalisation_table(claims.generalisation),
        comparison.make_variances_table(claims.variances),
        models.make_reached_table(report.curves),
    ]
    return {table.name: table for table in tables}


def show_tables(report: Report) -> str:
    """Return the tables for `--verbose`: models, their trainings, pairs and seeds."""
    tables = make_tables(report)
    names = ["models", "given", "pairs", "tests", "errors"]
    names += ["seeds", "seed_comparisons"] if has_several_seeds(report) else []
    return "\n".join(to_text(tables[name]) for name in names)


def has_several_seeds(report: Report) -> bool:
    """Return whether a method was trained with more than one seed."""
    return any(method.summary.n > 1 for method in report.seeds.methods.values())
