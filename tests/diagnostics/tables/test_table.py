from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

import pytest

from diagnostics.tables.table import (
    Cell,
    Column,
    Table,
    format_decimals,
    format_percent,
    format_points,
    format_whole,
    read_row,
    show_p,
    to_csv,
    to_letter,
    to_tex,
    to_text,
)

COLUMNS = (
    Column("model", "model"),
    Column("top1", "top-1, %", format_percent(), interval=True),
    Column("n", "images", format_whole),
    Column("phi", "φ", format_decimals(2)),
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


def test_a_column_that_no_row_has_is_told_once_and_stays_in_files() -> None:
    columns = (Column("a", "A"), Column("b", "B"), Column("sd", "sd"), Column("p", "p"))
    rows = [[Cell("x"), Cell("y"), Cell(None, note="One seed."), Cell(None, note="One seed.")] for _ in range(2)]
    table = Table("lone", "Lone.", columns, rows)
    assert table.drop_empty().headings == ["A", "B"] and table.undefined == "In no row: sd; p. One seed."
    assert to_text(table).count("One seed.") == 1 and "n/a" not in to_text(table)
    assert to_csv(table).startswith("a,b,sd,p") and "sd & p" in to_tex(table)
    assert TABLE.drop_empty() is TABLE and TABLE.undefined == ""
    assert (table.row_headers, TABLE.row_headers) == (2, 1)


@dataclass(frozen=True)
class Part:
    value: float | None
    low: float | None = None
    high: float | None = None
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    part: Part | None
    notes: dict[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("source", "cell"),
    [
        (Whole(Part(0.5, 0.4, 0.6)), Cell(0.5, 0.4, 0.6)),
        (Whole(Part(0.5, notes={"low": "One image."})), Cell(0.5, note="One image.")),
        (Whole(Part(None, notes={"value": "Too few."})), Cell(None, note="Too few.")),
        (Whole(None, notes={"part": "Not fitted."}), Cell(None, note="Not fitted.")),
        (Whole(None), Cell(None, note="No part.")),
    ],
)
def test_a_column_reads_value_interval_and_note(source, cell) -> None:
    columns = (Column("name", "name"), Column("x", "x", format_percent(), True, "part.value", "No part."))
    assert read_row(["kd"], source, columns) == [Cell("kd"), cell]


def test_a_table_describes_its_first_rows() -> None:
    assert (
        TABLE.describe(9)
        == "two_stage: top-1, % 66.7 [50.0, 80.0], images 12,345, φ −4.0e−03; kd: top-1, % 100.0, images 7."
    )
    assert TABLE.describe(1).endswith("φ −4.0e−03. And 1 more in tables/small.csv.")


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (format_percent(1), 0.98333, "98.3"),
        (format_points(1), -0.0111, "−1.1"),
        (format_points(1), -0.0001, "+0.0"),
        (format_decimals(3), 0.0, "0.000"),
        (format_decimals(3), -0.0, "0.000"),
        (format_decimals(3), 0.0002, "2.0e−04"),
        (format_decimals(2), 0.006, "0.01"),
        (format_decimals(2), 7.5e9, "7.5e+09"),
        (format_whole, 11220132, "11,220,132"),
        (show_p, 0.04567, "0.0457"),
        (show_p, 3e-7, "3.0e−07"),
        (show_p, 0.0, "< 1e-16"),
    ],
)
def test_numbers_as_they_are_shown(show, value, text) -> None:
    assert show(value) == text


def test_what_is_not_defined_says_why_in_a_footnote() -> None:
    assert TABLE.show_rows()[1] == [("kd", ""), ("100.0", ""), ("7", ""), ("n/a", "a")]
    assert TABLE.notes == ["Always right."]
    assert [to_letter(number) for number in (0, 25, 26, 52)] == ["a", "z", "aa", "ba"]


def test_csv_keeps_every_digit_and_leaves_out_what_is_not_defined() -> None:
    header, first, second = csv.reader(io.StringIO(to_csv(TABLE)))
    assert header == ["model", "top1", "top1_low", "top1_high", "n", "phi"]
    assert float(first[1]) == 2 / 3 and first[4:] == ["12345", "-0.004"]
    assert second == ["kd", "1.0", "", "", "7", ""]


def test_text_is_aligned() -> None:
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


def test_tex_escapes_what_latex_would_read() -> None:
    tex = to_tex(TABLE)
    assert r"\caption{Two models \& 100 \%.}" in tex
    assert r"two\_stage & 66.7 [50.0, 80.0] & 12,345 & $-$4.0e$-$03 \\" in tex
    assert r"n/a\textsuperscript{a}" in tex and r"\begin{tabular}{lrrr}" in tex and r"$\phi$" in tex
    assert tex.count("{") == tex.count("}")
    assert r"\textbackslash{}x\textasciicircum{}\{\}" in to_tex(Table("odd", "\\x^{}", COLUMNS[:1], [[Cell("a")]]))


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_text_is_no_formula_in_a_spreadsheet(name) -> None:
    table = Table("t", "", [Column("class", "class"), Column("change", "change")], [[Cell(name), Cell(-0.5)]])
    assert list(csv.reader(io.StringIO(to_csv(table))))[1] == [f"'{name}", "-0.5"]
