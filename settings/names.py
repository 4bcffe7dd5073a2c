"""Names that become folders: one path component that every file system takes, wherever the folder is copied to."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

LONGEST = 100  # bytes, of the 255 that file systems take: seeds, endings and temporary files come behind
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # Windows keeps these as files


def check_name(name: str) -> str:
    """`name` itself, where it can be a folder's.

    Raises:
        ValueError: `.`, `..`, an ending that gets lost, a device's name, or more than `LONGEST` bytes.
    """
    if name.strip(".") == "":
        raise ValueError("a name of dots alone is a folder that is there already, choose another")
    if name.endswith("."):
        raise ValueError("a dot at the end gets lost on some file systems, leave it out")
    if name.startswith("-"):
        raise ValueError("a dash at the beginning reads as an option, choose another")
    if DEVICES.fullmatch(name):
        raise ValueError("the name of a device on some systems, choose another")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LONGEST:
        raise ValueError(f"{size} bytes are too many for a folder's name, use at most {LONGEST}")
    return name


RunName = Annotated[str, Field(pattern=r"^[\w.-]+$"), AfterValidator(check_name)]
MethodName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$"), AfterValidator(check_name)]
