"""Kill trainings at random moments, resume them, and compare their end with that of undisturbed ones.

python -m tests.faults.soak --kills 100 [--seed 0] [--kinds run study torchrun]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.commands import Started, start
from tests.faults.harness import Workspace, write_images

KINDS = ("run", "study", "torchrun")
CONFIG: dict[str, Any] = {
    "checkpoint_minutes": 0.002,  # several in an epoch
    "teacher": {"epochs": 3},
    "training": {"epochs": 5},
    "methods": {"two_stage": {"stage2": {"epochs": 2}}, "crd_kd": {}},
}
SHORT: dict[str, Any] = {"methods": {"two_stage": {"stage2": {"epochs": 1}}}}  # of a study and of two processes
STUDY = {"shortcut": {"cue": "patch"}, "study": {"grid": [{"shortcut.conflicting": [0.1, 0.3]}]}}
TRANSIENT = ("timing.jsonl", "environment.json", "events.*")  # of time or of the machine
TIMED = ("cost.*", "models.*", "report.*", "predictions.npz")  # with latencies
LEFTOVERS = ("*.partial*", "*.lock", "checkpoint*.pt")


@dataclass(frozen=True)
class Soaked:
    """A run or a study with its caches in a folder of its own, and the commands that make it."""

    workspace: Workspace
    kind: str
    short: bool

    def make(self) -> Soaked:
        folder = self.workspace.folder
        images = folder.parent / "images"  # the same for all, or identities would differ
        if not images.exists():
            write_images(images, 12 if self.short else 48)
        folder.mkdir()
        settings = SHORT if self.short or self.kind != "run" else CONFIG
        study = STUDY if self.kind == "study" else {}
        self.workspace.write_config({**settings, **study, "data": {"root": str(images), "cache_dir": "cache"}})
        return self

    def start(self, script: str) -> Started:
        """Start to train what is not finished, or to report."""
        if script == "main_eval":
            return start(self.workspace.folder, script, ("runs/small", "--quiet"))
        phase = ("--phase", "study") if self.kind == "study" else ("--phase", "all", "--resume")
        words = ("--config", self.workspace.config.name, "--output-dir", "runs", *phase, "--quiet")
        return start(self.workspace.folder, script, words, torchrun=self.kind == "torchrun")

    def list_files(self) -> dict[str, int]:
        """List the files of runs and caches with their times of change."""
        found = {}
        for top in ("runs", "cache"):
            for path in (self.workspace.folder / top).rglob("*"):
                try:
                    found[str(path.relative_to(self.workspace.folder))] = path.stat().st_mtime_ns
                except FileNotFoundError:  # gone meanwhile
                    continue
        return found

    def wait_for_work(self, started: Started) -> None:
        """Wait until a command has written something or has ended."""
        known = self.list_files().items()
        while started.wait(0.01) is None and self.list_files().items() <= known:
            pass

    def read_results(self) -> dict[str, bytes]:
        """Read what must be the same each time: all but what depends on time."""
        folder = self.workspace.folder
        found = {
            name: (folder / name).read_bytes()
            for name in self.list_files()
            if (folder / name).is_file() and not any((folder / name).match(one) for one in (*TRANSIENT, *TIMED))
        }
        for path in folder.rglob("predictions.npz"):
            with np.load(path) as arrays:  # without latencies and the command's words
                found |= {name: arrays[name].tobytes() for name in arrays.files if name not in ("meta", "context")}
        return found


def check_ended(started: Started) -> None:
    """Raise RuntimeError with what a command printed, where it failed."""
    code = started.wait(None)
    if code:
        raise RuntimeError(f"exit code {code}: {started.errors.read_text(encoding='utf-8', errors='replace')}")


def find_differences(whole: Soaked, killed: Soaked) -> list[str]:
    """Name what is not the same in both or should not be there."""
    one, other = whole.read_results(), killed.read_results()
    if not one:
        return [f"{whole.workspace.folder} holds nothing to compare"]
    folder = killed.workspace.folder
    changed = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    left = sorted(str(path) for pattern in LEFTOVERS for path in folder.rglob(pattern))
    return [*(f"{folder.name}: {name} differs" for name in changed), *(f"{path} is left" for path in left)]


def run_undisturbed(soaked: Soaked, scripts: tuple[str, ...]) -> dict[str, float]:
    """Run commands to their end; return the seconds of each from its first file on."""
    seconds = {}
    for script in scripts:
        started = soaked.start(script)
        soaked.wait_for_work(started)
        begun = time.perf_counter()
        check_ended(started)
        seconds[script] = time.perf_counter() - begun
    return seconds


def run_with_kills(soaked: Soaked, seconds: dict[str, float], kills: int, draw: random.Random) -> Counter[str]:
    """Kill commands at random moments until each comes to its end; count the folders last written in."""
    met: Counter[str] = Counter()
    for script, length in seconds.items():
        while True:
            started = soaked.start(script)
            if met.total() < kills and not (script == "main_eval" and met["report"]):  # begins anew each time
                soaked.wait_for_work(started)
                if started.wait(draw.uniform(0, length)) is None and started.kill():
                    times = soaked.list_files()
                    met[
                        "report" if script == "main_eval" else str(Path(max(times, key=times.__getitem__)).parent)
                    ] += 1
                    continue
            check_ended(started)
            break
    return met


def soak(kind: str, folder: Path, kills: int, draw: random.Random, short: bool = False) -> list[str]:
    """Kill one kind of command `kills` times, each round to its end; return all differences."""
    scripts = ("main",) if short else ("main", "main_eval")
    whole, met, found, rounds = Soaked(Workspace(folder / kind), kind, short).make(), Counter[str](), [], 0
    seconds = run_undisturbed(whole, scripts)
    while met.total() < kills:
        killed = Soaked(Workspace(folder / f"{kind}{rounds}"), kind, short).make()
        met += run_with_kills(killed, seconds, kills - met.total(), draw)
        found += find_differences(whole, killed)
        rounds += 1
    places = ", ".join(f"{count} in {place}" for place, count in met.most_common())
    print(f"{kind}: {met.total()} kills in {rounds} rounds ({places}): {len(found)} differences", flush=True)
    return found


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS, help="what is killed (default: all)")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        shares = [-(-given.kills // len(given.kinds))] * len(given.kinds)
        found = [
            line
            for kind, kills in zip(given.kinds, shares, strict=True)
            for line in soak(kind, Path(folder), kills, draw)
        ]
    print("\n".join(found) if found else "identical end state, no leftovers")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    run()
