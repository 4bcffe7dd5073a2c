"""What the figures of a study show, in words with their numbers: for who does not see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostics.seeds import SeedSummary, plain_number
from study.figures import TITLES
from study.results import InheritanceRow, SummaryRow


def dots(arms: Mapping[str, Sequence[SummaryRow]], names: Sequence[str]) -> str:
    """Return what `figures.dots` shows."""
    parts = [
        f"{TITLES[name]}{f' with a {arm} teacher' if arm else ''}: "
        + "; ".join(
            f"{row.method} {percent(found)}" for row in rows if (found := row.values.get(name)) is not None
        )
        for name in names
        for arm, rows in arms.items()
    ]
    return ". ".join(parts) + "."


def inheritance(rows: Sequence[InheritanceRow]) -> str:
    """Return what `figures.inheritance` shows."""
    return "; ".join(f"{row.method} {_inherited(row)}" for row in rows) + "."


def _inherited(row: InheritanceRow) -> str:
    if row.value is None:
        return "is not defined"
    text = plain_number(row.value, 2)
    if row.low is None or row.high is None:
        return text
    return f"{text} ({plain_number(row.low, 2)} to {plain_number(row.high, 2)})"


def percent(summary: SeedSummary) -> str:
    """Return a mean over seeds with its interval."""
    text = f"{plain_number(100 * summary.mean, 1)} %"
    if summary.low is None or summary.high is None:
        return text
    return f"{text} ({plain_number(100 * summary.low, 1)} to {plain_number(100 * summary.high, 1)})"
