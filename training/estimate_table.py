"""The table that `--dry-run` prints of what jobs will take."""

from __future__ import annotations

from collections.abc import Sequence

from configs.schema import Config
from training.estimates import Estimate

ABOUT = (
    "estimates from a few steps of each kind of job on this machine as it is now, by untrained networks; "
    "the start of the program, slow disks, recordings and reports come on top"
)


def about(config: Config) -> str:
    """What the figures are, and what of a config they leave out."""
    return ABOUT + "".join(f"; {key}=true is not tried" for key in ("compile", "capture") if getattr(config, key))


def table(lines: Sequence[Estimate]) -> str:
    """One line an estimate, then what all take: time and disk add up, memory does not."""
    several, gpu = any(line.count > 1 for line in lines), any(line.gpu for line in lines)
    head = ["job", *(["jobs"] if several else []), "images x epochs", "time", *(["in all"] if several else [])]
    head += ["memory", *(["GPU"] if gpu else []), "disk", "and while it trains", ""]
    rows = [head, *(_row(line, several, gpu) for line in lines), _row(total(lines), several, gpu)]
    return aligned(rows, left=(0, len(head) - 1))


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Rows of equally many words as lines, columns `left` to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def total(lines: Sequence[Estimate]) -> Estimate:
    """All jobs one after another in one process."""
    return Estimate(
        "total",
        seconds=sum(line.count * line.seconds for line in lines),
        memory=max((line.memory for line in lines), default=0),
        gpu=max((line.gpu for line in lines), default=0),
        disk=sum(line.count * line.disk for line in lines),
        working=max((line.working for line in lines), default=0),
    )


def _row(line: Estimate, several: bool, gpu: bool) -> list[str]:
    is_total = line.what == "total"
    shown = f"{line.images:,} x {line.epochs}" if line.images else ""
    each = duration(line.seconds) if not (several and is_total) else ""
    return [
        line.what,
        *([str(line.count) if not is_total else ""] if several else []),
        shown,
        each,
        *([duration(line.count * line.seconds)] if several else []),
        size(line.memory),
        *([size(line.gpu)] if gpu else []),
        size(line.count * line.disk),
        size(line.working),
        line.note,
    ]


def duration(seconds: float) -> str:
    """In the unit that a person would take."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if seconds < 2:
        return f"{seconds:.1f} s"
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if days < 2 else f"{days:,.1f} days"


def size(number: float) -> str:
    """Bytes, in kB, MB or GB; nothing for none."""
    if number <= 0:
        return ""
    unit, of = next(((unit, of) for unit, of in (("kB", 1e3), ("MB", 1e6)) if number < 999.5 * of), ("GB", 1e9))
    return f"{number / of:.3g} {unit}" if number < 999.5 * of else f"{number / of:,.0f} {unit}"
