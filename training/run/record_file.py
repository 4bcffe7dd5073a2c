"""Files that tell a change: JSON whose last value is a digest of all others, texts whose first line is one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import UserError
from files import write_atomically, write_text

DIGEST, VERSION = "digest", "version"  # either tells that the other belongs there
SIGN = b"# digest "  # begins a signed text; earlier versions wrote none


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write values that JSON has, none of them NaN or infinite, and their digest, atomically."""
    record = {VERSION: 2, **values}
    write_text(path, json.dumps({**record, DIGEST: _digest(record)}, indent=2, allow_nan=False) + "\n")


def read_record(path: Path, mend: str) -> dict[str, Any]:
    """Read what `write_record` wrote, without the digest; a file of an earlier version has none to compare.

    Args:
        mend: what to do about a file that is damaged, for the message.

    Raises:
        UserError: the file is not there, or not as it was written.
    """
    if path.exists() and not path.is_file():  # a pipe in its place would be waited for
        raise UserError(f"{path} is no file: {mend}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is gone: {mend}") from None
    except (OSError, ValueError, RecursionError):  # a folder in its place, no text, no JSON, JSON too deep
        raise UserError(f"{path} is damaged: {mend}") from None
    if not isinstance(values, dict) or not _is_whole(values):
        raise UserError(f"{path} is not as it was written: {mend}")
    return {name: value for name, value in values.items() if name not in (DIGEST, VERSION)}


def _is_whole(values: dict[str, Any]) -> bool:
    if DIGEST not in values and VERSION not in values:
        return True  # of an earlier version
    rest = {name: value for name, value in values.items() if name != DIGEST}
    return bool(values.get(DIGEST) == _digest(rest))


def _digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of values without their digest, the first 16 hex digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def write_signed(path: Path, text: str) -> None:
    """Write text below a line with its digest, a comment in YAML, atomically."""
    content = text.encode()
    write_atomically(path, lambda file: file.write(SIGN + _text_digest(content) + b"\n" + content))


def is_signed(path: Path) -> bool:
    """Return whether a text has a digest, right or wrong: one without was changed on purpose."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(SIGN)) == SIGN


def is_as_signed(path: Path) -> bool:
    """Return whether a text is there and is what its digest, if it has one, is of."""
    head, _, text = path.read_bytes().partition(b"\n")
    changed = head.startswith(SIGN) and head.removeprefix(SIGN) != _text_digest(text)
    return not changed and bool(text.strip())


def _text_digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:16].encode()
