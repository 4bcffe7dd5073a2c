"""Checksums of archives and digests of files, without torch."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from errors import UserError, raise_read_failure
from files import ARCHIVE_ERRORS


def find_damaged_entry(path: Path) -> str | None:
    """Return an entry of a zip archive (.pt, .npz) whose checksum is wrong, or None.

    torch reads archives without their checksums, numpy large entries too. Other files give None.

    Raises:
        MachineError: the system cannot read it.
    """
    if path.exists() and not path.is_file():  # reading a pipe in its place would block
        return "the file itself, which is none"
    try:
        if not path.exists():
            return None
        with open(path, "rb") as file:  # by path, `is_zipfile` takes a file that cannot be opened for no archive
            if not zipfile.is_zipfile(file):
                return None
            with zipfile.ZipFile(file) as archive:
                return archive.testzip()
    except ARCHIVE_ERRORS as error:
        raise_read_failure(path, error)
        return "its list of entries"


def hash_file(path: Path) -> str:
    """Return the first 16 hex digits of a file's SHA-256.

    Raises:
        UserError: a pipe or a device.
        MachineError: the system cannot read it.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait
        raise UserError(f"{path} is no file: remove it")
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise_read_failure(path, error)
        raise
    return digest.hexdigest()[:16]
