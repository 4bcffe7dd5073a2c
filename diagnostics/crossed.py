"""Error of a mean over two crossed factors: seeds and test images, or teachers and student seeds.

Model: value (r, c) = mean + effect of row r + effect of column c + rest, all random (two-way random effects).
Letters: R rows, C columns, MS mean squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from diagnostics.statistics import CONFIDENCE


@dataclass(frozen=True)
class MeanError:
    """Standard error of a mean, and the degrees of freedom of its t-interval."""

    se: float
    df: float

    @property
    def margin(self) -> float:
        """Half of the 95 % interval."""
        return float(special.stdtrit(self.df, (1 + CONFIDENCE) / 2)) * self.se


def estimate_crossed_error(values: ArrayLike) -> MeanError:
    """Return the error of the mean of values (R, C) as an estimate for other rows and other columns.

    The variance is (MS_rows + MS_columns - MS_rest) / RC with Satterthwaite's (1946) degrees of freedom. With few
    rows or columns that alone covers too rarely, so the widest of it and the t-intervals over rows alone and over
    columns alone is taken.

    Raises:
        ValueError: fewer than two rows or columns.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or min(array.shape) < 2:
        raise ValueError(f"values must be (R, C) with two rows and two columns or more, got {array.shape}")
    rows, columns = array.shape
    mean, by_row, by_column = array.mean(), array.mean(axis=1), array.mean(axis=0)
    rest_df = (rows - 1) * (columns - 1)
    ms_rows = columns * by_row.var(ddof=1)
    ms_columns = rows * by_column.var(ddof=1)
    ms_rest = float(np.square(array - by_row[:, None] - by_column + mean).sum()) / rest_df
    errors = [(ms_rows, rows - 1.0), (ms_columns, columns - 1.0)]
    both = ms_rows + ms_columns - ms_rest
    if both > max(ms_rows, ms_columns):  # otherwise one of the factors adds nothing
        parts = ms_rows**2 / (rows - 1) + ms_columns**2 / (columns - 1) + ms_rest**2 / rest_df
        errors.append((both, both**2 / parts))
    found = [MeanError(math.sqrt(ms / array.size), float(df)) for ms, df in errors]
    return max(found, key=lambda error: error.margin)
