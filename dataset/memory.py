"""What a machine has and what is asked of it, compared before anything is made or written."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from errors import UserError, note

CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use, where there is one
SYSTEM = Path("/proc/meminfo")  # Linux
IN_MEMORY = 0.5  # share of the free memory that images may take: what trains on them needs the rest
WORTH_A_WORD = 10**9  # bytes
SMALLER = "choose a smaller value"


def machine_memory() -> int | None:
    """Bytes of memory that this machine, or the container, has; None where the system does not say."""
    found: list[int] = []
    with suppress(ValueError, OSError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):
        found.append(int(CGROUP.read_text()))
    return min((size for size in found if size > 0), default=None)


def free_memory() -> int | None:
    """Bytes that are free or could be at once; None where the system does not say.

    What a container keeps of files counts as free, since the system drops it when memory is wanted.
    """
    found: list[int] = []
    with suppress(IndexError, ValueError, OSError):
        found.append(int(SYSTEM.read_text().split("MemAvailable:")[1].split()[0]) * 1024)
    with suppress(IndexError, ValueError, OSError):
        used = int(CGROUP.with_name("memory.current").read_text())
        of_files = int(CGROUP.with_name("memory.stat").read_text().split("\nfile ")[1].split()[0])
        found.append(max(0, int(CGROUP.read_text()) - used + of_files))
    return min(found, default=None)


def see_that_it_fits(
    setting: str, what: str, needed: int, has: int | None, of: str = "memory", mend: str = SMALLER
) -> None:
    """Raise `UserError` where more bytes are needed than there are.

    Args:
        setting: KEY=VALUE of what is too large, which begins the message.
        what: takes the bytes, a plural.
        has: bytes, None where that is not known.
        of: of what it has them.
        mend: what to do then.
    """
    if has is not None and needed > has:
        raise UserError(
            f"{setting}: {what} take about {_gigabytes(needed)} of {of}, this machine has {_gigabytes(has)}: "
            f"{mend}"
        )


def see_that_images_fit(count: int, image_size: int, mend: str = SMALLER) -> None:
    """The same of `count` decoded images (3, S, S) uint8."""
    needed, has = count * 3 * image_size**2, machine_memory()
    see_that_it_fits(f"data.image_size={image_size}", f"{count:,} decoded images", needed, has, mend=mend)


def see_that_disk_holds(folder: Path, count: int, image_size: int) -> None:
    """The same of the disk that `folder`, the config's data.cache_dir, is or will be on."""
    there = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.is_dir())
    needed, free = count * 3 * image_size**2, shutil.disk_usage(there).free
    where = f"disk in data.cache_dir {folder}"
    see_that_it_fits(f"data.image_size={image_size}", f"{count:,} decoded images", needed, free, where)


def keeps_in_memory(wanted: bool | Literal["auto"], count: int, image_size: int) -> bool:
    """Whether `count` decoded images (3, S, S) are kept in memory, by the config's data.in_memory.

    auto: where they take no more than `IN_MEMORY` of what is free; it says so where they do not, or are many.

    Raises:
        UserError: memory is asked for that the machine does not have.
    """
    if wanted != "auto":
        if wanted:
            see_that_images_fit(count, image_size, "choose a smaller value, or data.in_memory=false")
        return wanted
    needed, free = count * 3 * image_size**2, free_memory()
    fits = free is None or needed <= IN_MEMORY * free
    if not fits or needed >= WORTH_A_WORD:
        there = "an unknown amount" if free is None else _gigabytes(free)
        note(
            f"data.in_memory=auto: {count:,} decoded images take {_gigabytes(needed)}, {there} of memory is free: "
            + ("in memory" if fits else "read from a file in data.cache_dir, batch by batch")
        )
    return fits


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size < 10**24 else "more than 10^15 GB"
