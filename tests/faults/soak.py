"""Kills a training at random moments, resumes it, and compares its end with that of one that was left alone.

python -m tests.faults.soak --kills 100 [--seed 0] [--study]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.conftest import ROOT

COMPARED = ("model.pt", "projections.pt", "metrics.jsonl", "result.json", "identity.json", "config.yaml")
LEFTOVERS = ("*.partial*", ".lock", "checkpoint*.pt")
CONFIG = {
    "name": "soak",
    "precision": "float32",
    "data": {"source": "digits", "image_size": 8, "crop": 1, "split": 0.1},
    "teacher": {"arch": "resnet8", "epochs": 3, "views": 2},
    "crd": {"epochs": 3, "num_negatives": 64, "dim": 8},
    "kd": {"epochs": 2},
    "baselines": {"methods": ["crd_kd"]},
}
STUDY = {"shortcut": {"cue": "patch"}, "study": {"grid": [{"shortcut.conflicting": [0.1, 0.3]}]}}


@dataclass(frozen=True)
class Place:
    """Where a run and its caches are; a folder of its own for each, so that caches are made under fire too."""

    folder: Path
    study: bool = False

    def start(self) -> subprocess.Popen[bytes]:
        values = {**CONFIG, **(STUDY if self.study else {})}
        config = self.folder / "soak.yaml"
        if not config.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            config.write_text(yaml.safe_dump(values), encoding="utf-8")
        phase = ("--phase", "study") if self.study else ("--phase", "all", "--resume")
        words = [sys.executable, str(ROOT / "main.py"), "--config", str(config), "--output-dir", "runs", *phase]
        return subprocess.Popen(
            [*words, "--quiet"],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def finish(self) -> None:
        """Run to the end.

        Raises RuntimeError where the command fails.
        """
        process = self.start()
        _, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{self.folder}: exit code {process.returncode}: {err.decode()}")

    def kill_after(self, seconds: float) -> bool:
        """Run, and kill after so long; whether it was still running then.

        Raises RuntimeError where the command fails before.
        """
        process = self.start()
        try:
            _, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        if process.returncode:
            raise RuntimeError(f"{self.folder}: exit code {process.returncode}: {err.decode()}")
        return False

    def files(self) -> dict[str, bytes]:
        """What must be the same, by path below the folder."""
        runs = self.folder / "runs"
        return {str(p.relative_to(runs)): p.read_bytes() for name in COMPARED for p in sorted(runs.rglob(name))}

    def leftovers(self) -> list[str]:
        """Files that a finished command must not leave; a study keeps its lock file."""
        found = [path for pattern in LEFTOVERS for path in self.folder.rglob(pattern)]
        return [str(path) for path in found]


def differences(whole: Place, killed: Place) -> list[str]:
    """In words, what is not the same in both or should not be there."""
    one, other = whole.files(), killed.files()
    if not one:
        return [f"{whole.folder} holds nothing to compare"]
    changed = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    return [*(f"{name} differs" for name in sorted(changed)), *(f"{path} is left" for path in killed.leftovers())]


def soak(folder: Path, kills: int, seed: int, study: bool = False) -> list[str]:
    """Kill at moments drawn by `seed` until `kills` are spent, each round to its end; gives all differences."""
    draw, whole, done, found = random.Random(seed), Place(folder / "whole", study), 0, []
    started = time.perf_counter()
    whole.finish()
    length, rounds = time.perf_counter() - started, 0
    while done < kills:
        killed = Place(folder / f"killed{rounds}", study)
        while done < kills and killed.kill_after(draw.uniform(0, length)):
            done += 1
        killed.finish()
        found += differences(whole, killed)
        rounds += 1
    state = "identical" if not found else "NOT identical"
    print(f"{done} kills in {rounds} rounds, {time.perf_counter() - started:.0f} s: {state}", flush=True)
    return found


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how often to kill (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--study", action="store_true", help="a study of two points in place of a run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), given.kills, given.seed, given.study)
    print("\n".join(found), end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    run()
