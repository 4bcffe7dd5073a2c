"""Kills trainings at random moments, resumes them, and compares their end with that of ones that were left alone.

python -m tests.faults.soak --kills 100 [--seed 0] [--study | --torchrun]

Of each ten kills seven meet a run, two a study and one a run under torchrun, or all meet the one that is named.
A kill comes at a moment drawn uniformly from what is left of a command's work, from its first file on.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.place import KINDS, Kind, Place, write_images

SHARES: dict[Kind, int] = {"run": 7, "study": 2, "torchrun": 1}  # of ten kills
PER_CLASS = 48  # training images
LEAST = 0.25  # of a command's length, over which a kill is drawn where less is left: what was lost is done again


@dataclass
class Tally:
    """What the kills of one kind met."""

    met: Counter[str] = field(default_factory=Counter)
    within: int = 0  # kills after which the checkpoint was one within an epoch
    rounds: int = 0

    @property
    def kills(self) -> int:
        return self.met.total()

    def __str__(self) -> str:
        met = ", ".join(f"{count} {what}" for what, count in self.met.most_common())
        return (
            f"{self.kills} kills in {self.rounds} rounds: {met}; {self.within} left a checkpoint within an epoch"
        )


def differences(whole: Place, killed: Place) -> list[str]:
    """In words, what is not the same in both or should not be there."""
    one, other = whole.files(), killed.files()
    if not one:
        return [f"{whole.folder} holds nothing to compare"]
    changed = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    if whole.recorded() != killed.recorded():
        changed.append("predictions.npz")
    return [
        *(f"{killed.folder.name}: {name} differs" for name in sorted(changed)),
        *(f"{path} is left" for path in killed.leftovers()),
    ]


def kill_once(place: Place, left: float, draw: random.Random) -> tuple[str, float]:
    """Start what comes next and kill it; what that met, and the seconds that the command had worked.

    Raises RuntimeError where the command fails.
    """
    started = place.start()
    if not place.first_file(started):
        place.see_that_it_ended_well(started)
        return "", 0.0
    seconds = draw.uniform(0, left)
    begun = time.perf_counter()
    code = started.wait(seconds)
    worked = time.perf_counter() - begun
    if code is None and started.kill():
        return place.met(), worked
    place.see_that_it_ended_well(started)
    return "", worked


def soak_one(kind: Kind, folder: Path, kills: int, draw: random.Random, short: bool = False) -> list[str]:
    """Kill one kind of command until `kills` are spent, each round to its end; gives all differences."""
    images, tally, found, started = folder / "images", Tally(), [], time.perf_counter()
    if not images.exists():
        write_images(images, 24 if short else PER_CLASS)
    whole = Place(folder / f"{kind}-whole", images, kind, short)
    lengths = whole.finish()
    while tally.kills < kills:
        killed = Place(folder / f"{kind}-killed{tally.rounds}", images, kind, short)
        left = list(lengths)
        reports = 0  # kills of main_eval.py: one a round, since it takes longest
        while tally.kills < kills and not killed.is_reported() and not reports:
            number = int(killed.is_trained())  # of the command
            what, worked = kill_once(killed, max(left[number], LEAST * lengths[number]), draw)
            left[number] -= worked
            if what:
                tally.met[what] += 1
                tally.within += killed.is_within_an_epoch()
                reports += number
        killed.finish()
        found += differences(whole, killed)
        tally.rounds += 1
        print(f"{kind}: {tally}, {len(found)} differences", file=sys.stderr, flush=True)
    state = "identical" if not found else "NOT identical"
    print(f"{kind}: {tally}; {time.perf_counter() - started:.0f} s: {state}", flush=True)
    return found


def soak(folder: Path, kills: int, seed: int, kinds: tuple[Kind, ...], short: bool = False) -> list[str]:
    """`kills` shared among kinds, at moments drawn by `seed`; gives all differences."""
    draw, found, spent, shares = random.Random(seed), [], 0, sum(SHARES[kind] for kind in kinds)
    for number, kind in enumerate(kinds):
        own = kills - spent if number == len(kinds) - 1 else kills * SHARES[kind] // shares
        spent += own
        found += soak_one(kind, folder, own, draw, short) if own else []
    return found


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how often to kill (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--study", action="store_true", help="a study of two points alone")
    only.add_argument("--torchrun", action="store_true", help="two processes under torchrun alone")
    given = parser.parse_args()
    kinds: tuple[Kind, ...] = ("study",) if given.study else ("torchrun",) if given.torchrun else KINDS
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), given.kills, given.seed, kinds)
    print("\n".join(found), end="\n" if found else "")
    state = "identical end state, no leftovers" if not found else f"{len(found)} differences"
    print(f"{given.kills} kills, {time.perf_counter() - started:.0f} s: {state}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    run()
