"""Files that show a change: JSON with a digest of its values, and text below a line with its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import UserError, raise_read_failure
from files import write_text

DIGEST, VERSION = "digest", "version"  # keys of each record
MARK = "# digest "  # begins a signed text


def compute_digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes, the first 16 hex digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON values, none of them NaN or infinite, with their digest, atomically."""
    record = {VERSION: 2, **values}
    write_text(path, json.dumps({**record, DIGEST: _digest_values(record)}, indent=2, allow_nan=False) + "\n")


def read_record(path: Path, mend: str) -> dict[str, Any]:
    """Read what `write_record` wrote, without the digest.

    Args:
        path: of the record.
        mend: what to do about a damaged file, for the message.

    Raises:
        UserError: the file is missing or changed.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait
        raise UserError(f"{path} is no file: {mend}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is gone: {mend}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise_read_failure(path, error)
        raise UserError(f"{path} is damaged: {mend}") from None
    if not isinstance(values, dict) or values.pop(DIGEST, None) != _digest_values(values):
        raise UserError(f"{path} is not as it was written: {mend}")
    return {name: value for name, value in values.items() if name != VERSION}


def _digest_values(values: Mapping[str, Any]) -> str:
    return compute_digest(json.dumps(values, sort_keys=True).encode())


def write_signed(path: Path, text: str) -> None:
    """Write text below a line with its digest, a comment in YAML, atomically."""
    write_text(path, f"{MARK}{compute_digest(text.encode())}\n{text}")


def is_signed(path: Path) -> bool:
    """Return whether a text has a digest, right or wrong; a user removes it to make a change."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def has_valid_signature(path: Path) -> bool:
    """Return whether a text is not empty and fits its digest, if it has one."""
    head, _, text = path.read_bytes().partition(b"\n")
    is_changed = head.startswith(MARK.encode()) and head != f"{MARK}{compute_digest(text)}".encode()
    return not is_changed and bool(text.strip())
