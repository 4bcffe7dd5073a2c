"""A full disk at each kind of write, at eight sizes each: what was said, what remained, whether it went on.

python -m tests.faults.full_disk            # a limit on the size of one file (RLIMIT_FSIZE) while it is written
python -m tests.faults.full_disk --tmpfs    # a file system of its own that is too small, where one can be mounted
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import main
from tests.faults.small_place import Place, Said, call, evaluate

SHARES = range(8)  # eighths of what the file takes
RESULTS = (
    "model.pt",
    "projections.pt",
    "metrics.jsonl",
    "result.json",
    "identity.json",
    "config.yaml",
    "cues.json",
)
UNLIMITED = resource.RLIM_INFINITY


@dataclass(frozen=True)
class Kind:
    """A kind of file, and the command that writes it."""

    name: str
    path: str  # pattern of its path, its temporary name too
    size: str  # pattern of the file whose size it takes
    phase: str = "teacher"  # or "crd", "eval", "export", "study", "sheet"
    named: str = ""  # what the line names, where it is not that file


KINDS = [
    Kind(".lock", r"small/\.lock$", ""),
    Kind("identity.json", r"identity\.json", "identity.json"),
    Kind("config.yaml", r"small/\.?config\.yaml", "config.yaml"),
    Kind("environment.json", r"environment\.json", "environment.json"),
    Kind("decoded images", r"cache/folder-.*/pixels\.npy", "pixels.npy", named="cache/folder-"),
    Kind("decoded images, meta", r"cache/folder-.*/meta\.json", "meta.json", named="cache/folder-"),
    Kind("checkpoint.pt", r"checkpoint\.pt", "model.pt"),
    Kind("metrics.jsonl", r"metrics\.jsonl", "metrics.jsonl"),
    Kind("timing.jsonl", r"timing\.jsonl", "timing.jsonl"),
    Kind("events.*", r"events\.out", "events.*"),
    Kind("model.pt", r"model\.pt", "model.pt"),
    Kind("result.json", r"result\.json", "result.json"),
    Kind("projections.pt", r"projections\.pt", "projections.pt", "crd"),
    Kind("teacher's outputs", r"view0\.partial", "view0.npy", "crd"),
    Kind("teacher's outputs, digest", r"view0\.sha256", "view0.sha256", "crd"),
    Kind("predictions.npz", r"predictions\.npz", "predictions.npz", "eval"),
    Kind("report.html", r"report\.html", "report.html", "eval"),
    Kind("report.json", r"report\.json", "report.json", "eval"),
    Kind("predictions.csv", r"predictions\.csv", "predictions.csv", "eval"),
    Kind("a table", r"tables/.*models\.tex", "models.tex", "eval"),
    Kind("a figure", r"figures/.*accuracy\.pdf", "accuracy.pdf", "eval"),
    Kind("exported weights", r"out[^/]*/.*model\.pt(\.|$)", "model.pt", "export", r"model\.pt"),
    Kind("exported program", r"out[^/]*/.*model_rgb_uint8\.pt2", "model_rgb_uint8.pt2", "export", r"uint8\.pt2"),
    Kind("cues.npz", r"cues\.npz", "cues.npz", "study"),
    Kind("cues.json", r"cues\.json", "cues.json", "study"),
    Kind("contact sheet", r"-cues\.png", "*-cues.png", "sheet"),
]


@dataclass
class Limit:
    """Which file cannot grow beyond which size, from the moment that it is opened to be written."""

    path: re.Pattern[str] | None = None
    size: int = 0
    hits: list[str] = field(default_factory=list)

    def see(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or self.path is None or not isinstance(arguments[2], int) or not arguments[2] & 3:
            return
        name, (_, most) = str(arguments[0]), resource.getrlimit(resource.RLIMIT_FSIZE)
        found = self.path.search(name) is not None
        if not found and threading.current_thread() is not threading.main_thread():
            return  # TensorBoard's, which opens its file again and again
        self.hits += [name] if found else []
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size if found else UNLIMITED, most))


_limits: list[Limit] = []  # hooks cannot be taken away, so there is one


def _the_limit() -> Limit:
    if not _limits:
        _limits.append(Limit())
        sys.addaudithook(_limits[0].see)
    return _limits[0]


@contextmanager
def limited(path: str, size: int) -> Iterator[Limit]:
    """No file whose path matches can be written beyond `size` bytes."""
    limit, (before, most) = _the_limit(), resource.getrlimit(resource.RLIMIT_FSIZE)
    limit.path, limit.size, limit.hits = re.compile(path), size, []
    try:
        yield limit
    finally:
        limit.path = None
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def command(phase: str, place: Place) -> Said:
    """The command that writes files of a phase."""
    commands: dict[str, Callable[[], Said]] = {
        "eval": lambda: evaluate(str(place.run)),
        "export": lambda: evaluate(str(place.run), "--model", "scratch", "--export", str(place.folder / "out")),
        "study": lambda: place.train("--phase", "study", "--set", "name=study", "shortcut.cue=patch"),
        "sheet": lambda: place.train("--phase", "all", "--dry-run", "--set", "shortcut.cue=patch", "name=sheet"),
    }
    return commands[phase]() if phase in commands else place.train("--phase", phase, "--resume")


BEFORE = {"teacher": (), "crd": ("teacher",), "eval": ("all",), "export": ("all",), "study": (), "sheet": ()}


@dataclass(frozen=True)
class Row:
    """What eight trials of a kind gave."""

    kind: str
    refused: int  # ended with one line that names the file, and exit code 1
    remained: str
    resumed: int  # ended, with room, in the same bytes
    problems: list[str]


class Disk:
    """Places as they are before and after each phase, made once, copies of which are filled up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = Place(folder / "work")
        self.before: dict[str, Path] = {}
        self.after: dict[str, Path] = {}

    def prepare(self, phase: str) -> None:
        """Run a phase undisturbed, in the place where it will be disturbed, so that paths are the same."""
        if phase in self.before:
            return
        self.before[phase], self.after[phase] = self.folder / f"{phase}-before", self.folder / f"{phase}-after"
        shutil.rmtree(self.work.folder, ignore_errors=True)
        self.work.folder.mkdir()
        self.work.make()
        for earlier in BEFORE[phase]:
            done = self.work.train("--phase", earlier)
            assert done.code == 0, done.err
        shutil.copytree(self.work.folder, self.before[phase])
        done = command(phase, self.work)
        assert done.code == 0, done.err
        shutil.copytree(self.work.folder, self.after[phase])

    def try_kind(self, kind: Kind, shares: range | tuple[int, ...] = SHARES) -> Row:
        self.prepare(kind.phase)
        refused, resumed, remained, problems = 0, 0, set(), []
        for share in shares:
            self._start_over(kind.phase)
            size = self._size(kind) * share // 8
            with limited(kind.path, size) as limit:
                said = command(kind.phase, self.work)
            found = self._problems(kind, said, limit)
            refused += not found
            problems += [f"{kind.name} at {size} bytes: {one}" for one in found]
            remained.add(self._remained(kind))
            again = command(kind.phase, self.work)
            same = again.code == 0 and self._results(self.work.folder) == self._results(self.after[kind.phase])
            resumed += same
            problems += [] if same else [f"{kind.name} at {size} bytes, then with room: {again.code} {again.err}"]
        return Row(kind.name, refused, ", ".join(sorted(remained)), resumed, problems)

    def _start_over(self, phase: str) -> None:
        shutil.rmtree(self.work.folder)
        shutil.copytree(self.before[phase], self.work.folder)

    def _size(self, kind: Kind) -> int:
        found = [path.stat().st_size for path in self.after[kind.phase].rglob(kind.size)] if kind.size else []
        return max(found, default=16)

    def _problems(self, kind: Kind, said: Said, limit: Limit) -> list[str]:
        """In words, what was not as it should be."""
        if not limit.hits:
            return ["was never written"]
        lines = said.err.splitlines()
        found = [] if said.code == 1 else [f"exit code {said.code}: {said.err or said.out}"]
        named = kind.named or kind.path.strip("$")
        text = said.out if kind.phase == "study" else said.err  # a study goes on, and names what failed as it goes
        if len(lines) != 1 or "file too large" not in text or not re.search(named, text):
            found.append(f"said {said.err!r}")
        return found + [f"left {path}" for path in self._leftovers()]

    def _leftovers(self) -> list[str]:
        found = [*self.work.folder.rglob("*.partial*"), *self.work.folder.rglob(".lock")]
        return [str(path) for path in found]

    def _remained(self, kind: Kind) -> str:
        here = [path.relative_to(self.work.folder) for path in self.work.folder.rglob("*") if path.is_file()]
        new = [path for path in here if not (self.before[kind.phase] / path).exists()]
        of_kind = [path for path in new if re.search(kind.path, str(path))]
        if not of_kind:
            return "nothing of it"
        return "what was written of it"

    def _results(self, folder: Path) -> dict[str, bytes]:
        runs = folder / "runs"
        return {str(path.relative_to(runs)): path.read_bytes() for name in RESULTS for path in runs.rglob(name)}


def table(folder: Path, kinds: list[Kind], shares: range | tuple[int, ...] = SHARES) -> list[Row]:
    disk, rows = Disk(folder), []
    for kind in kinds:
        rows.append(disk.try_kind(kind, shares))
        row, count = rows[-1], len(shares)
        print(f"{row.kind:26} one line, exit code 1: {row.refused}/{count}; remained: {row.remained}; ", end="")
        print(f"went on to the same bytes: {row.resumed}/{count}", flush=True)
        for problem in row.problems:
            print(f"    {problem[:300]}", flush=True)
    return rows


@contextmanager
def mounted(folder: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """A tmpfs of that size on a folder; gives what makes it larger.

    Raises OSError where none can be mounted.
    """
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        raise OSError("only root can mount a file system")
    folder.mkdir(exist_ok=True)

    def mount(options: str) -> None:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr.strip())

    mount(f"size={kilobytes}k")
    try:
        yield lambda more: mount(f"remount,size={more}k")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_a_tmpfs(folder: Path, kilobytes: int, whole: dict[str, bytes]) -> tuple[str, list[str]]:
    """Train in a file system that is too small, then in the same with room; gives a line and what went wrong."""
    place = Place(folder / f"tmpfs{kilobytes}")
    with mounted(place.folder, kilobytes) as grow:
        said = _train_in(place, folder)
        left = [str(path) for path in place.folder.rglob("*.partial*")]
        problems = [f"left {path}" for path in left]
        if said.code == 0:
            return f"{kilobytes:6} kB: it fits", problems
        if said.code != 1 or said.err.count("\n") != 1 or "no space left" not in said.err:
            problems.append(f"exit code {said.code}: {said.err}")
        kept = sum(1 for path in place.folder.rglob("*") if path.is_file())
        grow(100_000)
        again = _train_in(place, folder)
        found = {str(p.relative_to(place.runs)): p.read_bytes() for p in place.runs.rglob("model.pt")}
        if again.code != 0 or found != whole:
            problems.append(f"with room: {again.code} {again.err}")
        where = re.sub(r".*/(\S+) cannot be written.*", r"\1", said.err.strip())
        same = "the same weights" if found == whole else "OTHER weights"
        return f"{kilobytes:6} kB: exit code {said.code} at {where}, {kept} files kept; with room {same}", problems


def _train_in(place: Place, folder: Path) -> Said:
    """The images are elsewhere, caches and runs in the place."""
    source = Place(folder / "source")
    if not source.config.exists():
        source.folder.mkdir(exist_ok=True)
        source.make()
    given = ("--config", str(source.config), "--output-dir", str(place.runs), "--quiet", "--device", "cpu")
    words = ("--phase", "all", "--resume", "--set", f"data.cache_dir={place.cache}")
    return call(main.run, "main.py", *given, *words)


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tmpfs", action="store_true", help="mount small file systems (as root)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.tmpfs:
            problems = tmpfs_table(folder)
        else:
            problems = [problem for row in table(folder, KINDS) for problem in row.problems]
    print(f"{len(problems)} problems")
    sys.exit(1 if problems else 0)


SIZES = (8, 24, 40, 100, 400, 800, 1200, 2000)  # kB, of which the run takes about 2,500


def tmpfs_table(folder: Path, sizes: tuple[int, ...] = SIZES) -> list[str]:
    whole = Place(folder / "whole")
    whole.folder.mkdir()
    said = _train_in(whole, folder)
    assert said.code == 0, said.err
    weights = {str(path.relative_to(whole.runs)): path.read_bytes() for path in whole.runs.rglob("model.pt")}
    problems = []
    for size in sizes:
        line, found = fill_a_tmpfs(folder, size, weights)
        print(line, flush=True)
        print("".join(f"    {problem[:300]}\n" for problem in found), end="", flush=True)
        problems += found
    return problems


if __name__ == "__main__":
    run()
