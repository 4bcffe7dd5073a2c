"""A table as plain data, and its ways out: CSV at full precision, LaTeX, and aligned text.

What a number looks like is decided once, by its column; LaTeX, text and the page show the same characters.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from diagnostics.comparison import DifferenceInterval
from diagnostics.seeds import SeedComparison, plain_number, typographic

Value = str | int | float | None
Show = Callable[[Value], str]
MISSING = "n/a"
PAIRS = (("a", "b"), ("first", "second"), ("label", "answer"))


@dataclass(frozen=True)
class Cell:
    """A value, perhaps with an interval, and a remark; a value of None is not defined and the note says why."""

    value: Value
    low: float | None = None
    high: float | None = None
    note: str = ""
    show: Callable[[Value], str] | None = None  # in place of its column's, where rows are measures


@dataclass(frozen=True)
class Column:
    """The key of a column in CSV files, its heading for readers, and how it writes a value."""

    key: str
    heading: str
    show: Show = str
    interval: bool = False
    sums: bool = False  # its words are numbers, such as 12 + 34

    def text(self, cell: Cell) -> str:
        """What readers see of a cell."""
        if cell.value is None:
            return MISSING
        show = cell.show or self.show
        if not self.interval or cell.low is None or cell.high is None:
            return show(cell.value)
        return f"{show(cell.value)} [{show(cell.low)}, {show(cell.high)}]"


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, and a caption; an empty one says why in `empty`."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    empty: str = ""

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.columns]

    @property
    def notes(self) -> list[str]:
        """Each remark once, in the order in which a reader meets it."""
        return list(dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note))

    def shown(self) -> list[list[tuple[str, str]]]:
        """For each cell what is shown, and the letter of its footnote or an empty string."""
        letters = {note: letter(number) for number, note in enumerate(self.notes)}
        return [
            [
                (column.text(cell), letters.get(cell.note, ""))
                for column, cell in zip(self.columns, row, strict=True)
            ]
            for row in self.rows
        ]

    def is_text(self, column: int) -> bool:
        """Whether a column holds words, which are aligned to the left."""
        if self.columns[column].sums:
            return False
        values = [row[column].value for row in self.rows]
        return any(isinstance(v, str) for v in values) and all(isinstance(v, str | None) for v in values)

    @property
    def row_headers(self) -> int:
        """How many leading columns name a row: two where it is about a pair."""
        return 2 if tuple(column.key for column in self.columns[:2]) in PAIRS else 1

    def defined(self) -> Table:
        """The same without the columns of which no row has a value; `undefined` says of these why."""
        empty = [not any(row[n].value is not None for row in self.rows) for n in range(len(self.columns))]
        if not self.rows or not any(empty):
            return self
        kept = [number for number, is_empty in enumerate(empty) if not is_empty]
        rows = [[row[number] for number in kept] for row in self.rows]
        return replace(self, columns=[self.columns[number] for number in kept], rows=rows)

    @property
    def undefined(self) -> str:
        """Which columns `defined` leaves out, and why, as a sentence; empty where it leaves out none."""
        kept = {column.key for column in self.defined().columns}
        lost = [number for number, column in enumerate(self.columns) if column.key not in kept]
        if not lost:
            return ""
        why = dict.fromkeys(row[n].note for row in self.rows for n in lost if row[n].note)
        return " ".join([f"In no row: {'; '.join(self.columns[n].heading for n in lost)}.", *why])

    def only(self, keep: Callable[[Sequence[Cell]], bool]) -> Table:
        """The same table with some of its rows."""
        return replace(self, rows=[row for row in self.rows if keep(row)])


MODEL = Column("model", "model")
NO_TEACHER = "There is no teacher among these models."


def letter(number: int) -> str:
    """a to z, then aa, ab and so on."""
    head, tail = divmod(number, 26)
    return (letter(head - 1) if head else "") + chr(ord("a") + tail)


def percent(places: int = 1) -> Show:
    """Fractions as percent."""
    return lambda value: fixed(100 * _number(value), places)


def decimals(places: int) -> Show:
    """Fixed decimals, and the power of ten where these would be too many or too few digits."""

    def show(value: Value) -> str:
        number = _number(value)
        tiny = 0 < abs(number) < 0.5 * 10**-places
        return typographic(f"{number:.1e}") if tiny or abs(number) >= 1e6 else fixed(number, places)

    return show


def significant(digits: int) -> Show:
    """So many digits that are known, the rest zeros: 19,015.52 is 19,000 with two."""

    def show(value: Value) -> str:
        number = _number(value)
        if number == 0:
            return "0"
        places = digits - 1 - math.floor(math.log10(abs(number)))
        return typographic(f"{round(number, places):,.{max(0, places)}f}")

    return show


def signed(places: int = 1) -> Show:
    """A difference of fractions in percentage points."""
    return lambda value: fixed(100 * _number(value), places, sign="+")


def per(unit: float, places: int) -> Show:
    """Numbers in multiples of `unit`, with commas."""
    return lambda value: typographic(f"{_number(value) / unit:,.{places}f}")


def grouped(value: Value) -> str:
    """Whole numbers with commas."""
    return typographic(f"{_number(value):,}")


def together(places: int = 0) -> Show:
    """One number, or those of several stages such as "14 + 10", with commas."""
    return lambda value: " + ".join(f"{float(part):,.{places}f}" for part in str(value).split(" + "))


def fixed(value: float, places: int, sign: str = "") -> str:
    """A number with so many decimals and a typographic minus; what rounds to 0 has no sign of its own."""
    return plain_number(value, places, sign)


def _number(value: Value) -> float:
    if value is None or isinstance(value, str):
        raise TypeError(f"a column of numbers cannot show {value!r}")
    return value


def to_csv(table: Table) -> str:
    """Every value at full precision: fractions stay fractions, what is not defined is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        key for c in table.columns for key in ([c.key, f"{c.key}_low", f"{c.key}_high"] if c.interval else [c.key])
    )
    for row in table.rows:
        values: list[Value] = []
        for column, cell in zip(table.columns, row, strict=True):
            values += [cell.value, cell.low, cell.high] if column.interval else [cell.value]
        writer.writerow("" if value is None else value for value in values)
    return file.getvalue()


ESCAPES = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "−": "$-$",
    "×": r"$\times$",
    "φ": r"$\phi$",
    "χ": r"$\chi$",
    "κ": r"$\kappa$",
    "²": r"\textsuperscript{2}",
    "₁₀": r"\textsubscript{10}",
    "≤": r"$\le$",
    "·": r"$\cdot$",
}


def escape(text: str) -> str:
    """Text that LaTeX sets as it is."""
    text = text.replace("₁₀", "\0")
    return "".join(ESCAPES.get(character, character) for character in text).replace("\0", ESCAPES["₁₀"])


def to_tex(table: Table) -> str:
    r"""A `table` float with booktabs rules; wide ones need \usepackage{graphicx} for their \resizebox."""
    wide = len(table.columns) > 7
    alignment = "".join("l" if table.is_text(number) else "r" for number in range(len(table.columns)))
    lines = [
        "% needs \\usepackage{booktabs" + (",graphicx}" if wide else "}"),
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        *(["\\resizebox{\\linewidth}{!}{%"] if wide else []),
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        " & ".join(map(escape, table.headings)) + r" \\",
        "\\midrule",
        *(" & ".join(_tex_cell(*cell) for cell in row) + r" \\" for row in table.shown()),
        "\\bottomrule",
        "\\end{tabular}" + ("}" if wide else ""),
        *(
            f"\\par\\footnotesize\\textsuperscript{{{letter(number)}}} {escape(note)}"
            for number, note in enumerate(table.notes)
        ),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex_cell(text: str, mark: str) -> str:
    return escape(text) + (f"\\textsuperscript{{{mark}}}" if mark else "")


def to_text(table: Table) -> str:
    """Aligned columns for a terminal, footnotes under them; without columns that are empty."""
    if not table.rows:
        return f"{table.caption}\n{table.empty}\n"
    left_out, table = table.undefined, table.defined()
    cells = [[text + (f" ({mark})" if mark else "") for text, mark in row] for row in table.shown()]
    grid = [table.headings, *cells]
    widths = [max(len(row[number]) for row in grid) for number in range(len(table.columns))]
    left = [table.is_text(number) for number in range(len(table.columns))]

    def line(row: Sequence[str]) -> str:
        padded = (
            text.ljust(width) if words else text.rjust(width)
            for text, width, words in zip(row, widths, left, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    notes = [f"({letter(number)}) {note}" for number, note in enumerate(table.notes)]
    notes += [left_out] if left_out else []
    return "\n".join([table.caption, line(table.headings), rule, *map(line, cells), *notes]) + "\n"


def difference_cell(result: DifferenceInterval | SeedComparison) -> Cell:
    """The cell of a difference with its interval."""
    note = result.notes.get("difference") or result.notes.get("low", "")
    return Cell(result.difference, result.low, result.high, note)
