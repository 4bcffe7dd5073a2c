"""Feeds the program what no person would write, bytes changed and structures made odd by hypothesis: only a clean
refusal or the right result may come out.

python -m tests.faults.fuzz [--trials 1000] [--seed 1] [TARGET ...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from errors import MachineError, UserError
from tests.faults.small_place import Place, silent

Result = str  # "right", "refused" or "made anew"


@dataclass(frozen=True)
class Target:
    """A reader, what to give to it, and how to tell a right result.

    check: raises AssertionError for a wrong result; the errors of a refusal and no others may come out of it.
    """

    name: str
    examples: st.SearchStrategy[Any]
    check: Callable[[Any], Result]
    share: float = 1.0  # of the trials, less where one takes long


@dataclass(frozen=True)
class Outcome:
    """How often a target gave what, and what failed, if anything."""

    counts: Counter[Result]
    failure: BaseException | None
    seconds: float


def is_clean(error: BaseException) -> bool:
    """Whether an error is a refusal of one line that says something."""
    return isinstance(error, UserError | MachineError) and len(str(error)) > 10


def feed(target: Target, trials: int, number: int | None = None) -> Outcome:
    """Run a target: the same examples each time without a number, others with one."""
    counts: Counter[Result] = Counter()

    @settings(
        max_examples=max(1, int(trials * target.share)),
        derandomize=number is None,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.examples)
    def one(example: Any) -> None:
        with silent(), warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found = target.check(example)
            except (UserError, MachineError) as error:
                assert is_clean(error), error
                found = "refused"
        counts[found] += 1

    started, failure = time.perf_counter(), None
    try:
        (one if number is None else seed(number)(one))()
    except Exception as error:  # whatever came out of it is what was looked for
        failure = error
    return Outcome(counts, failure, time.perf_counter() - started)


def targets(folder: Path) -> list[Target]:
    """All targets, on files that are made in a folder."""
    from tests.faults import fuzz_files, fuzz_recordings, fuzz_settings, fuzz_weights  # they need `Target`

    place = Place(folder).make()
    modules = (fuzz_settings, fuzz_weights, fuzz_files, fuzz_recordings)
    return [target for module in modules for target in module.targets(place)]


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="TARGET", help="parts of names (default: all)")
    parser.add_argument("--trials", type=int, default=1000, help="of each target (default 1000)")
    parser.add_argument("--seed", type=int, help="of the examples (default: those of the test suite)")
    arguments = parser.parse_args()
    failed = total = 0
    with tempfile.TemporaryDirectory() as folder:
        for target in targets(Path(folder)):
            if arguments.names and not any(name in target.name for name in arguments.names):
                continue
            found = feed(target, arguments.trials, arguments.seed)
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.counts.items()))
            print(f"{target.name:28} {kinds} ({found.seconds:.0f} s)", flush=True)
            total += found.counts.total()
            if found.failure is not None:
                failed += 1
                _show(found.failure)
    print(f"{total} trials, {failed} targets with a wrong result")
    sys.exit(1 if failed else 0)


def _show(error: BaseException) -> None:
    notes, error.__notes__ = getattr(error, "__notes__", []), []
    lines = "".join(traceback.format_exception(error)).splitlines()[-8:]
    lines += "\n".join(notes).splitlines()[:8]
    print("\n".join(f"    {line[:200]}" for line in lines))


if __name__ == "__main__":
    run()
