"""Rows of a CSV file that a person gives, by the names in its first line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from errors import UserError


def csv_rows(path: Path, key: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The line and the fields of each row, an absent field as an empty text; other columns come along.

    Args:
        key: the config's key that names the file, for messages.
        columns: that the first line has to name.

    Raises:
        UserError: no such file, or one that is no such CSV.
    """
    named = ",".join(columns)
    if path.exists() and not path.is_file():
        raise UserError(f"{key} {path} cannot be read: it is no file, name a CSV with the columns {named}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{path}: no column '{missing[0]}', its first line must name {' and '.join(columns)}"
                )
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{key} {path} cannot be read: {error}") from None
