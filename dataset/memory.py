"""Checks that memory, disk and folder suffice before anything is written."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from errors import UserError, info

CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use, where there is one
SYSTEM = Path("/proc/meminfo")  # Linux
IN_MEMORY = 0.5  # share of the free memory that images may take: what trains on them needs the rest
LARGE = 10**9  # bytes of images from which a line tells where they are kept


def find_machine_memory() -> int | None:
    """Return the bytes of memory of this machine or container, None if unknown."""
    found: list[int] = []
    with suppress(ValueError, OSError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):
        found.append(int(CGROUP.read_text()))
    return min((size for size in found if size > 0), default=None)


def find_free_memory() -> int | None:
    """Return the bytes of memory that are free, None where they are not known.

    A container's cache of files counts as free, since the system drops it when memory is wanted.
    """
    found: list[int] = []
    with suppress(IndexError, ValueError, OSError):
        found.append(int(SYSTEM.read_text().split("MemAvailable:")[1].split()[0]) * 1024)
    with suppress(IndexError, ValueError, OSError):
        used = int(CGROUP.with_name("memory.current").read_text())
        cached = int(CGROUP.with_name("memory.stat").read_text().split("\nfile ")[1].split()[0])
        found.append(max(0, int(CGROUP.read_text()) - used + cached))
    return min(found, default=None)


def check_fits(setting: str, what: str, needed: int, has: int | None, of: str = "memory", hint: str = "") -> None:
    """Raise `UserError` where more bytes are needed than there are (None: not known).

    The message is "SETTING: WHAT take about 2 GB of OF, this machine has 1 GB: choose a smaller valueHINT".
    """
    if has is not None and needed > has:
        taken = f"{what} take about {_format_size(needed)} of {of}, this machine has {_format_size(has)}"
        raise UserError(f"{setting}: {taken}: choose a smaller value{hint}")


def check_images_fit(count: int, image_size: int, cache_dir: Path | None = None, hint: str = "") -> None:
    """Raise `UserError` where memory, or the disk of `cache_dir`, is too small."""
    has, of = find_machine_memory(), "memory"
    if cache_dir is not None:
        there = next(part for part in (cache_dir.absolute(), *cache_dir.absolute().parents) if part.is_dir())
        has, of = shutil.disk_usage(there).free, f"disk in data.cache_dir {cache_dir}"
    needed, what = count * 3 * image_size**2, f"{count:,} decoded images"
    check_fits(f"data.image_size={image_size}", what, needed, has, of, hint)


def check_free_memory(count: int, image_size: int, hint: str) -> None:
    """Raise `UserError` where less memory is free than decoded images take."""
    needed, what = count * 3 * image_size**2, f"{count:,} decoded images"
    check_fits(f"data.image_size={image_size}", what, needed, find_free_memory(), "free memory", hint)


def uses_memory(wanted: bool | Literal["auto"], count: int, image_size: int) -> bool:
    """Return whether `count` decoded images are kept in memory, by data.in_memory.

    auto: where they take no more than `IN_MEMORY` of what is free; a line says so where they do not, or are large.

    Raises:
        UserError: memory is asked for that the machine does not have.
    """
    if wanted != "auto":
        if wanted:
            check_images_fit(count, image_size, hint=", or data.in_memory=false")
        return wanted
    needed, free = count * 3 * image_size**2, find_free_memory()
    fits = free is None or needed <= IN_MEMORY * free
    if not fits or needed >= LARGE:
        there = "an unknown amount" if free is None else _format_size(free)
        where = "in memory" if fits else "read from a file in data.cache_dir, batch by batch"
        taken = f"{count:,} decoded images take {_format_size(needed)}"
        info(f"data.in_memory=auto: {taken}, {there} of memory is free: {where}")
    return fits


def check_writable(folder: Path) -> None:
    """Raise `UserError` where data.cache_dir cannot be made or written in."""
    found = next(part for part in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(part))
    if not found.is_dir():
        raise UserError(f"data.cache_dir {folder}: {found} is not a folder: name another one")
    if not os.access(found, os.W_OK | os.X_OK):
        raise UserError(f"data.cache_dir {folder}: no permission to write in {found}: name another folder")


def _format_size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size < 10**24 else "more than 10^15 GB"
