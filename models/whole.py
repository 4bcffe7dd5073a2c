"""Whether a file is as it was written: the checksums of an archive, and a file's digest. No torch is needed."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from files import ARCHIVE_ERRORS


def find_damaged_entry(path: Path) -> str | None:
    """What of a zip archive (.pt, .npz) is not as it was written by its checksums, None where all is.

    torch does not look at them, numpy not at all of them. A file that is no archive is none of this function's.
    """
    if path.exists() and not path.is_file():  # a pipe in its place would be waited for
        return "the file itself, which is none"
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except ARCHIVE_ERRORS:
        return "its list of entries"


def hash_file(path: Path) -> str:
    """SHA-256 of a file, the first 16 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]
