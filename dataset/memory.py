"""What a machine has and what is asked of it, compared before anything is made or written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from errors import UserError

CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use, where there is one


def machine_memory() -> int | None:
    """Bytes of memory that this machine, or the container, has; None where the system does not say."""
    found: list[int] = []
    with suppress(ValueError, OSError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):
        found.append(int(CGROUP.read_text()))
    return min((size for size in found if size > 0), default=None)


def see_that_it_fits(setting: str, what: str, needed: int, has: int | None, of: str = "memory") -> None:
    """Raise `UserError` where more bytes are needed than there are.

    Args:
        setting: KEY=VALUE of what is too large, which begins the message.
        what: takes the bytes, a plural.
        has: bytes, None where that is not known.
        of: of what it has them.
    """
    if has is not None and needed > has:
        raise UserError(
            f"{setting}: {what} take about {_gigabytes(needed)} of {of}, this machine has {_gigabytes(has)}: "
            "choose a smaller value"
        )


def see_that_images_fit(count: int, image_size: int) -> None:
    """The same of `count` decoded images (3, S, S) uint8."""
    needed = count * 3 * image_size**2
    see_that_it_fits(f"data.image_size={image_size}", f"{count:,} decoded images", needed, machine_memory())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size < 10**24 else "more than 10^15 GB"
