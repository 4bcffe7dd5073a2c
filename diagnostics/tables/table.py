"""A table as plain data, and its ways out: CSV at full precision, LaTeX, and aligned text.

A column decides once how its numbers look; LaTeX, text and the page show the same characters.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diagnostics.names import show_name
from diagnostics.seeds import format_number, replace_hyphen

Value = str | int | float | None
Show = Callable[[Value], str]
MISSING = "n/a"
PAIRS = (("a", "b"), ("first", "second"), ("label", "answer"), ("model", "training"), ("model", "tap"))
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how text begins that spreadsheets run
SMALLEST_P = 1e-16  # below it a p is not written out


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
    path: str = ""  # of its value in what a row is read from, such as "interval.difference"; else the key
    why: str = ""  # the note of a value that is not there and that nothing else explains

    def format_cell(self, cell: Cell) -> str:
        """Return what readers see of a cell."""
        if cell.value is None:
            return MISSING
        show = cell.show or self.show
        if not self.interval or cell.low is None or cell.high is None:
            return show(cell.value)
        return f"{show(cell.value)} [{show(cell.low)}, {show(cell.high)}]"

    def read(self, source: object) -> Cell:
        """Return the value at the column's path in `source`, with its interval and what `notes` say of it."""
        owner: Any = source
        value: Any = source
        note = ""
        for name in (self.path or self.key).split("."):
            if value is None:
                break
            owner, notes = value, getattr(value, "notes", {})
            value = getattr(owner, name)
            note = notes.get(name) or (notes.get("low") if self.interval else "") or note
        note = note or (self.why if value is None else "")
        if not self.interval:
            return Cell(value, note=note)
        return Cell(value, getattr(owner, "low", None), getattr(owner, "high", None), note)


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

    def show_rows(self) -> list[list[tuple[str, str]]]:
        """Return for each cell what is shown, and the letter of its footnote or an empty string."""
        letters = {note: to_letter(number) for number, note in enumerate(self.notes)}
        return [
            [(column.format_cell(cell), letters.get(cell.note, "")) for column, cell in self.match_cells(row)]
            for row in self.rows
        ]

    def match_cells(self, row: Sequence[Cell]) -> list[tuple[Column, Cell]]:
        """Return the cells of a row with their columns."""
        return list(zip(self.columns, row, strict=True))

    def is_text(self, column: int) -> bool:
        """Return whether a column holds words, which are aligned to the left."""
        values = [row[column].value for row in self.rows]
        return any(isinstance(v, str) for v in values) and all(isinstance(v, str | None) for v in values)

    @property
    def row_headers(self) -> int:
        """Number of leading columns that name a row: two where it is about a pair."""
        return 2 if tuple(column.key for column in self.columns[:2]) in PAIRS else 1

    def drop_empty(self) -> Table:
        """Return the table without the columns that no row has a value for; `undefined` explains these."""
        kept = [n for n in range(len(self.columns)) if any(row[n].value is not None for row in self.rows)]
        if not self.rows or len(kept) == len(self.columns):
            return self
        rows = [[row[number] for number in kept] for row in self.rows]
        return replace(self, columns=[self.columns[number] for number in kept], rows=rows)

    @property
    def undefined(self) -> str:
        """The columns that `drop_empty` leaves out, and why, as a sentence; empty where it leaves out none."""
        kept = {column.key for column in self.drop_empty().columns}
        lost = [number for number, column in enumerate(self.columns) if column.key not in kept]
        if not lost:
            return ""
        why = dict.fromkeys(row[n].note for row in self.rows for n in lost if row[n].note)
        return " ".join([f"In no row: {'; '.join(self.columns[n].heading for n in lost)}.", *why])

    def describe(self, most: int) -> str:
        """Return the first rows as a sentence, for readers who do not see a figure of these numbers."""
        table = self.drop_empty()
        first, rest = table.row_headers, max(0, len(table.rows) - most)
        lines = []
        for row in table.rows[:most]:
            texts = [(column.heading, column.format_cell(cell)) for column, cell in table.match_cells(row)]
            numbers = ", ".join(f"{heading} {text}" for heading, text in texts[first:] if text != MISSING)
            lines.append(f"{' and '.join(text for _, text in texts[:first])}: {numbers}")
        more = f" And {rest} more in tables/{table.name}.csv." if rest else ""
        return f"{'; '.join(lines)}.{more}"


MODEL = Column("model", "model", lambda value: show_name(str(value)))
PAIR = (replace(MODEL, key="a", heading="A"), replace(MODEL, key="b", heading="B"))
NO_TEACHER = "There is no teacher among these models."


def read_row(names: Sequence[Value], source: object, columns: Sequence[Column]) -> list[Cell]:
    """Return a row of `columns`: the names in the first of them, the others read from `source`."""
    return [*map(Cell, names), *(column.read(source) for column in columns[len(names) :])]


def to_letter(number: int) -> str:
    """Return a to z, then aa, ab and so on."""
    head, tail = divmod(number, 26)
    return (to_letter(head - 1) if head else "") + chr(ord("a") + tail)


def format_percent(places: int = 1) -> Show:
    """Show fractions as percent."""
    return lambda value: format_number(100 * _require_number(value), places)


def format_decimals(places: int) -> Show:
    """Show fixed decimals, or the power of ten where these would be too many or too few digits."""

    def show(value: Value) -> str:
        number = _require_number(value)
        tiny = 0 < abs(number) < 0.5 * 10**-places
        return replace_hyphen(f"{number:.1e}") if tiny or abs(number) >= 1e6 else format_number(number, places)

    return show


def format_points(places: int = 1) -> Show:
    """Show a difference of fractions in percentage points."""
    return lambda value: format_number(100 * _require_number(value), places, sign="+")


def format_multiple(unit: float, places: int) -> Show:
    """Show numbers in multiples of `unit`, with commas."""
    return lambda value: replace_hyphen(f"{_require_number(value) / unit:,.{places}f}")


def format_whole(value: Value) -> str:
    """Show whole numbers with commas."""
    return replace_hyphen(f"{_require_number(value):,}")


def show_p(value: Value) -> str:
    """Show a p-value."""
    return "< 1e-16" if _require_number(value) < SMALLEST_P else format_decimals(4)(value)


def _require_number(value: Value) -> float:
    if value is None or isinstance(value, str):
        raise TypeError(f"a column of numbers cannot show {value!r}")
    return value


def to_csv(table: Table) -> str:
    """Return every value at full precision: fractions stay fractions, what is not defined is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        key for c in table.columns for key in ([c.key, f"{c.key}_low", f"{c.key}_high"] if c.interval else [c.key])
    )
    for row in table.rows:
        values: list[Value] = []
        for column, cell in table.match_cells(row):
            values += [cell.value, cell.low, cell.high] if column.interval else [cell.value]
        writer.writerow(f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) else v for v in values)
    return file.getvalue()


ESCAPES = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    **{character: f"${character}$" for character in "<>"},
    "−": "$-$",
    "×": r"$\times$",
    "φ": r"$\phi$",
    "χ": r"$\chi$",
    "κ": r"$\kappa$",
    "²": r"\textsuperscript{2}",
    "≤": r"$\le$",
    "·": r"$\cdot$",
}


def encode_tex(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    return "".join(ESCAPES.get(character, character) for character in text)


def to_tex(table: Table) -> str:
    r"""Return a `table` float with booktabs rules; wide ones need \usepackage{graphicx} for their \resizebox."""
    wide = len(table.columns) > 7
    alignment = "".join("l" if table.is_text(number) else "r" for number in range(len(table.columns)))
    lines = [
        "% needs \\usepackage{booktabs" + (",graphicx}" if wide else "}"),
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{encode_tex(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        *(["\\resizebox{\\linewidth}{!}{%"] if wide else []),
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        " & ".join(map(encode_tex, table.headings)) + r" \\",
        "\\midrule",
        *(" & ".join(_format_tex(*cell) for cell in row) + r" \\" for row in table.show_rows()),
        "\\bottomrule",
        "\\end{tabular}" + ("}" if wide else ""),
        *(
            f"\\par\\footnotesize\\textsuperscript{{{to_letter(number)}}} {encode_tex(note)}"
            for number, note in enumerate(table.notes)
        ),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _format_tex(text: str, mark: str) -> str:
    return encode_tex(text) + (f"\\textsuperscript{{{mark}}}" if mark else "")


def to_text(table: Table) -> str:
    """Return aligned columns for a terminal, footnotes under them; without columns that are empty."""
    if not table.rows:
        return f"{table.caption}\n{table.empty}\n"
    left_out, table = table.undefined, table.drop_empty()
    cells = [[text + (f" ({mark})" if mark else "") for text, mark in row] for row in table.show_rows()]
    notes = [f"({to_letter(number)}) {note}" for number, note in enumerate(table.notes)]
    notes += [left_out] if left_out else []
    head, *lines = align_columns(table, cells)
    rule = "  ".join("-" * width for width in measure_widths(table, cells))
    return "\n".join([table.caption, head, rule, *lines, *notes]) + "\n"


def measure_widths(table: Table, cells: Sequence[Sequence[str]]) -> list[int]:
    """Return the characters that each column takes."""
    return [max(map(len, column)) for column in zip(table.headings, *cells, strict=True)]


def align_columns(table: Table, cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the line of headings and a line for each row of cells, words to the left and numbers to the right."""
    widths = measure_widths(table, cells)
    is_left = [table.is_text(number) for number in range(len(table.columns))]
    return [
        "  ".join(
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(row, widths, is_left, strict=True)
        ).rstrip()
        for row in [table.headings, *cells]
    ]
