from __future__ import annotations

from diagnostics.comparison import compute_bootstrap_interval, find_detectable_difference
from diagnostics.evaluation.results import MethodOverSeeds, MethodsCompared, ModelAccuracy, Pair
from diagnostics.seeds import compare_over_seeds, summarise
from diagnostics.statistics import Counts, compute_paired_statistics
from diagnostics.tables.comparison import (
    make_errors_table,
    make_pairs_table,
    make_seed_pairs_table,
    make_seeds_table,
    make_tests_table,
)
from diagnostics.tables.table import Table, to_text


def pair_row(a: int, b: int, c: int, d: int) -> Pair:
    statistics = compute_paired_statistics(Counts(a, b, c, d))
    right_a = [True] * (a + b) + [False] * (c + d)
    right_b = [True] * a + [False] * b + [True] * c + [False] * d
    quoted = statistics.quoted_test
    interval = compute_bootstrap_interval(right_a, right_b, seed=0)
    detectable = find_detectable_difference(a + b + c + d, statistics.disagreement)
    return Pair("teacher", "kd", statistics, quoted.p, quoted.log10_p, interval, detectable, "", quoted.log10_p)


def shown(table: Table, row: int = 0) -> dict[str, str]:
    return {column.key: text for column, (text, _) in zip(table.columns, table.show_rows()[row], strict=True)}


def test_pair_tables_give_the_published_example() -> None:
    row = pair_row(4869, 1884, 694, 2553)
    assert shown(make_tests_table([row])) | {
        "mcnemar_corrected": "548.38",
        "chi_square_yates": "2283.92",
    } == shown(make_tests_table([row]))
    assert shown(make_errors_table([row]))["error_separation_index"] == "0.462"
    assert shown(make_errors_table([row]))["error_dissimilarity"] == "0.336"
    answer = shown(make_pairs_table([row]))
    assert (answer["only_a"], answer["only_b"], answer["quoted"]) == ("1,884", "694", "corrected")
    assert answer["difference"].startswith("−11.9 [−12.") and answer["p"] == "< 1e-16"


def test_pair_tables_of_identical_models_explain_each_gap() -> None:
    row = pair_row(40, 0, 0, 0)
    for table in (make_pairs_table([row]), make_tests_table([row]), make_errors_table([row])):
        text = to_text(table)
        assert ("n/a" in text or "In no row: " in text) and table.notes
        gaps = [mark for text, mark in table.show_rows()[0] if text == "n/a"]
        assert all(gaps)
    assert make_pairs_table([]).empty


def test_seed_tables() -> None:
    one, three = summarise([0.7]), summarise([0.70, 0.72, 0.74])
    models = [ModelAccuracy("", "kd", seed, "", "", top1, 0, 1) for seed, top1 in enumerate([0.70, 0.72, 0.74])]
    table = make_seeds_table({"kd": MethodOverSeeds([0, 1, 2], three), "crd": MethodOverSeeds([0], one)}, models)
    row = {"method": "kd", "n": "3", "mean": "72.00 [67.03, 76.97]", "sd": "2.00"}
    assert shown(table) == {**row, "seed_0": "70.00", "seed_1": "72.00", "seed_2": "74.00"}
    assert [text for text, _ in table.show_rows()[1]] == ["crd", "1", "70.00", *["n/a"] * 4]
    comparison = compare_over_seeds([0.7, 0.7, 0.7], [0.70, 0.72, 0.74])
    table = make_seed_pairs_table([MethodsCompared("kd", "two_stage", [0, 1, 2], comparison, holm_p=comparison.p)])
    assert shown(table)["difference"] == "+2.00 [−2.97, +6.97]"
    assert any("6 seeds" in note for note in table.notes)
