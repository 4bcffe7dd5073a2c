"""What was measured epoch by epoch, as read from a file: numbers by name, or refused."""

from __future__ import annotations

import math
from typing import Any


def checked_history(lines: Any) -> list[dict[str, float]]:
    """Return the lines of a history, each the numbers of an epoch by name.

    Raises:
        ValueError: something else.
    """
    if not isinstance(lines, list) or not all(_is_epoch(line) for line in lines):
        raise ValueError("these are no numbers by epoch")
    return [dict(line) for line in lines]


def checked_best(best: Any) -> dict[str, Any] | None:
    """Return the best epoch so far, its weights among it; None where none is chosen.

    Raises:
        ValueError: something else.
    """
    if best is not None and not (isinstance(best, dict) and _is_number(best.get("val_top1")) and "model" in best):
        raise ValueError("this is no epoch with its weights")
    return best


def _is_epoch(line: Any) -> bool:
    named = isinstance(line, dict) and "epoch" in line
    return named and all(isinstance(key, str) and _is_number(value) for key, value in line.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
