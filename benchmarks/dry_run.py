"""What `--dry-run` foretells of a run, beside what the run then takes: time, memory and disk of every job.

    python -m benchmarks.dry_run [--config FILE] [--set KEY=VALUE ...]

The run is made in a temporary folder, in the same process, each job right after its estimate. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from configs.reading import DEFAULT_CONFIG, load_config
from configs.schema import Config
from models.checkpoint import previous_of
from models.machine import choose_device, open_machine
from models.peak import Peak
from training.estimate_table import duration, size
from training.estimates import Estimate, Task, estimate
from training.experiment import Experiment, open_experiment
from training.job_folder import JobFolder
from training.phases import Job, jobs_of, run_jobs
from training.run_folder import RunFolder


@dataclass(frozen=True)
class Real:
    """What a job took; bytes."""

    seconds: float
    memory: int
    disk: int  # of what is left, without TensorBoard's events and the small records


def take(job: Job, experiment: Experiment) -> Real:
    """Train a job and look."""
    peak = Peak(experiment.machine.device)
    seconds = list[float]()

    def train() -> None:
        begun = time.perf_counter()
        run_jobs([job], experiment)
        seconds.append(time.perf_counter() - begun)

    with redirect_stdout(io.StringIO()):
        peak.growth(train)
    return Real(seconds[0], peak.process, weights_in(job.folder))


def weights_in(folder: JobFolder) -> int:
    """Bytes of a finished job's weights and projections; it has no checkpoints any more."""
    assert not folder.checkpoint.exists() and not previous_of(folder.checkpoint).exists()
    return sum(path.stat().st_size for path in folder.path.glob("*.pt"))


def compare(config: Config, folder: Path, seconds: float) -> list[tuple[Estimate, float, Real]]:
    """Of each job of a run its estimate, the seconds that this took, and what the job then really took.

    Each is estimated right before it runs, so that what else the machine does meets both alike.
    """
    device = choose_device("auto")
    machine = open_machine(config.precision, device, quiet=True)
    experiment = open_experiment(config, RunFolder(folder / config.name), machine)
    jobs, found = jobs_of("all", config, experiment.folder), []
    for job in jobs:
        begun = time.perf_counter()
        *_, line = estimate([Task(job, experiment, kept=False)], quiet=True, seconds=seconds / len(jobs))
        took = time.perf_counter() - begun
        found.append((line, took, take(job, experiment)))
    return found


def comparison(found: Sequence[tuple[Estimate, float, Real]]) -> str:
    """A line a job: estimated, real and their ratio."""
    rows = [["job", "estimated", "real", "ratio", "memory", "real", "ratio", "disk", "real"]]
    for line, _, real in found:
        memory = [size(line.memory), size(real.memory), f"{line.memory / real.memory:.2f}"]
        rows.append([line.what, *_times(line.seconds, real.seconds), *memory, size(line.disk), size(real.disk)])
    both = sum(line.seconds for line, *_ in found), sum(real.seconds for *_, real in found)
    rows.append(["all", *_times(*both), *[""] * 5])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = ["  ".join(row).rstrip() for row in cells]
    return "\n".join([*lines, f"the estimates took {sum(took for _, took, _ in found):.1f} s"])


def _times(estimated: float, real: float) -> list[str]:
    return [duration(estimated), duration(real), f"{estimated / real:.2f}"]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seconds", type=float, default=20.0, help="that the estimates may take together")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(arguments.config, [*arguments.set, f"data.cache_dir={folder}/cache"])
        print(comparison(compare(config, Path(folder), arguments.seconds)))


if __name__ == "__main__":
    main()
