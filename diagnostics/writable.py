"""Checks before hours of computing that its result can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from errors import UserError
from files import wrap_io_errors

REPORT_FOLDERS, REPORT_FILES = (
    ("tables", "figures"),
    ("predictions.npz", "report.json", "report.html", "predictions.csv"),
)


def check_folder(folder: Path, hint: str = "") -> None:
    """Check that files can be written to a folder, which may not exist yet.

    hint: another way out than to move what is in the way.

    Raises:
        UserError, MachineError: something is in the way, no permission, a read-only or a full disk.
    """
    place = folder.absolute()
    there = next(part for part in (place, *place.parents) if os.path.lexists(part))
    if not there.is_dir():
        raise UserError(f"{folder} cannot be written: {there} is in the way and no folder, move it{hint}")
    with wrap_io_errors(folder, lambda: 0, "nothing is computed"), tempfile.TemporaryFile(dir=there):
        pass


def check_report_folder(folder: Path) -> None:
    """Check that a report can be written to a folder; raises as `check_folder`."""
    for part in (folder, *(folder / name for name in REPORT_FOLDERS)):
        check_folder(part)
    for path in (folder / name for name in REPORT_FILES):
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is in the way and no file: move it")


def check_export_folder(folder: Path) -> None:
    """Check that an export can be written to a folder, with its lock beside it; raises as `check_folder`."""
    place = folder.resolve()
    check_folder(place)
    check_folder(place.parent)
    lock = place.with_name(f"{place.name}.partial.lock")
    if lock.is_symlink() or (lock.exists() and not lock.is_file()):
        raise UserError(f"{lock} is in the way and no lock of this program: move it, or name another --export")
