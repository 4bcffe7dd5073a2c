from __future__ import annotations

import csv
import io

import pytest

from diagnostics.comparison import bootstrap_difference, smallest_detectable_difference
from diagnostics.cost import Cost, Latency
from diagnostics.results import MethodOverSeeds, MethodsCompared, Pair, RelativeCost, Robustness
from diagnostics.seeds import compare_over_seeds, summarise
from diagnostics.statistics import Counts, paired_statistics
from diagnostics.tables import comparison as tables_comparison
from diagnostics.tables.comparison import errors, pairs, seed_comparisons, seeds
from diagnostics.tables.predictions import cost, robustness
from diagnostics.tables.table import (
    Cell,
    Column,
    Table,
    decimals,
    grouped,
    letter,
    percent,
    signed,
    to_csv,
    to_tex,
    to_text,
)

COLUMNS = (
    Column("model", "model"),
    Column("top1", "top-1, %", percent(), interval=True),
    Column("n", "images", grouped),
    Column("phi", "φ", decimals(2)),
)
TABLE = Table(
    "small",
    "Two models & 100 %.",
    COLUMNS,
    [
        [Cell("two_stage"), Cell(2 / 3, 0.5, 0.8), Cell(12345), Cell(-0.004)],
        [Cell("kd"), Cell(1.0), Cell(7), Cell(None, note="Always right.")],
    ],
)


def pair_row(a: int, b: int, c: int, d: int) -> Pair:
    statistics = paired_statistics(Counts(a, b, c, d))
    right_a = [True] * (a + b) + [False] * (c + d)
    right_b = [True] * a + [False] * b + [True] * c + [False] * d
    quoted = statistics.quoted_test
    interval = bootstrap_difference(right_a, right_b, seed=0)
    detectable = smallest_detectable_difference(a + b + c + d, statistics.disagreement)
    return Pair("teacher", "kd", statistics, quoted.p, quoted.log10_p, interval, detectable, "", quoted.log10_p)


def shown(table: Table, row: int = 0) -> dict[str, str]:
    return {column.key: text for column, (text, _) in zip(table.columns, table.shown()[row], strict=True)}


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (percent(1), 0.98333, "98.3"),
        (signed(1), -0.0111, "−1.1"),
        (signed(1), -0.0001, "+0.0"),
        (decimals(3), 0.0, "0.000"),
        (decimals(3), -0.0, "0.000"),
        (decimals(3), 0.0002, "2.0e−04"),
        (decimals(2), 0.006, "0.01"),
        (decimals(2), 7.5e9, "7.5e+09"),
        (grouped, 11220132, "11,220,132"),
    ],
)
def test_numbers_as_they_are_shown(show, value, text):
    assert show(value) == text


def test_what_is_not_defined_says_why_in_a_footnote():
    assert TABLE.shown()[1] == [("kd", ""), ("100.0", ""), ("7", ""), ("n/a", "a")]
    assert TABLE.notes == ["Always right."]
    assert [letter(number) for number in (0, 25, 26, 52)] == ["a", "z", "aa", "ba"]


def test_csv_keeps_every_digit_and_leaves_out_what_is_not_defined():
    header, first, second = csv.reader(io.StringIO(to_csv(TABLE)))
    assert header == ["model", "top1", "top1_low", "top1_high", "n", "phi"]
    assert float(first[1]) == 2 / 3 and first[4:] == ["12345", "-0.004"]
    assert second == ["kd", "1.0", "", "", "7", ""]


def test_text_is_aligned():
    assert to_text(TABLE).splitlines() == [
        "Two models & 100 %.",
        "model               top-1, %  images         φ",
        "---------  -----------------  ------  --------",
        "two_stage  66.7 [50.0, 80.0]  12,345  −4.0e−03",
        "kd                     100.0       7   n/a (a)",
        "(a) Always right.",
    ]
    empty = Table("none", "Nothing.", COLUMNS, [], "There is no model.")
    assert to_text(empty) == "Nothing.\nThere is no model.\n"


def test_tex_escapes_what_latex_would_read():
    tex = to_tex(TABLE)
    assert r"\caption{Two models \& 100 \%.}" in tex
    assert r"two\_stage & 66.7 [50.0, 80.0] & 12,345 & $-$4.0e$-$03 \\" in tex
    assert r"n/a\textsuperscript{a}" in tex and r"\begin{tabular}{lrrr}" in tex and r"$\phi$" in tex
    assert tex.count("{") == tex.count("}")
    assert r"\textbackslash{}x\textasciicircum{}\{\}" in to_tex(Table("odd", "\\x^{}", COLUMNS[:1], [[Cell("a")]]))


def test_pair_tables_give_the_published_example():
    row = pair_row(4869, 1884, 694, 2553)
    assert shown(tables_comparison.tests([row])) | {
        "mcnemar_corrected": "548.38",
        "chi_square_yates": "2283.92",
    } == shown(tables_comparison.tests([row]))
    assert shown(errors([row]))["error_separation_index"] == "0.462"
    assert shown(errors([row]))["error_dissimilarity"] == "0.336"
    answer = shown(pairs([row]))
    assert (answer["only_a"], answer["only_b"], answer["quoted"]) == ("1,884", "694", "corrected")
    assert answer["difference"].startswith("−11.9 [−12.") and float(answer["log10_p"].replace("−", "-")) < -100


def test_pair_tables_of_identical_models_explain_each_gap():
    row = pair_row(40, 0, 0, 0)
    for table in (pairs([row]), tables_comparison.tests([row]), errors([row])):
        assert "n/a" in to_text(table) and table.notes
        gaps = [mark for text, mark in table.shown()[0] if text == "n/a"]
        assert all(gaps)
    assert pairs([]).empty


def test_seed_tables():
    one, three = summarise([0.7]), summarise([0.70, 0.72, 0.74])
    table = seeds({"kd": MethodOverSeeds([0, 1, 2], three), "crd": MethodOverSeeds([0], one)})
    assert shown(table) == {"method": "kd", "n": "3", "mean": "72.00 [67.03, 76.97]", "sd": "2.00"}
    assert shown(table, 1) == {"method": "crd", "n": "1", "mean": "70.00", "sd": "n/a"}
    comparison = compare_over_seeds([0.7, 0.7, 0.7], [0.70, 0.72, 0.74])
    table = seed_comparisons([MethodsCompared("kd", "two_stage", [0, 1, 2], comparison, "")])
    assert shown(table)["difference"] == "+2.00 [−2.97, +6.97]"
    assert "6 seeds" in table.notes[0]


def test_robustness_and_cost_without_a_teacher():
    errors_of = {"kd": {"jpeg": [0.1, 0.2, 0.3, 0.4, 0.5]}}
    table = robustness(Robustness(errors_of, {}, 9))
    assert shown(table) == {"model": "kd", "mce": "n/a", "jpeg": "30.0"} and "no teacher" in table.notes[0]
    latency = Latency(batch=1, repeats=5, median_ms=0.5, iqr_ms=0.1, images_per_second=2000.0)
    table = cost({"kd": RelativeCost(Cost(10, 20, 30, [latency], "cpu", 1), None)})
    assert shown(table)["median_ms_1"] == "0.50" and shown(table)["latency_ratio_1"] == "n/a"
    assert cost({}).empty and not cost({}).rows
