"""`--dry-run`: the resolved config, what would be done, and what it will take; nothing is trained or written."""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema import Config
from dataset.contact_sheet import write_contact_sheet
from dataset.sample import Decoding, sample
from models.machine import Machine
from training import distributed
from training.claim import with_dependents
from training.estimate_table import about, table
from training.estimates import Task, estimate
from training.experiment import Experiment, open_experiment
from training.job_name import TEACHER, JobName
from training.phases import check, describe, jobs_of, say
from training.run_folder import RunFolder
from training.teacher import is_given


@dataclass(frozen=True)
class Opened:
    """An experiment, perhaps on a sample of its images."""

    experiment: Experiment
    decoding: Decoding | None


def open_undecoded(config: Config, folder: RunFolder, machine: Machine) -> Opened:
    """An experiment without decoding more than a few images, but with a planted cue, whose sheet shows images.

    Raises:
        UserError: images that are missing or do not fit the config.
    """
    found = sample(config.data, machine.device) if config.shortcut.cue == "none" else None
    if found is None:
        return Opened(open_experiment(config, folder, machine), None)
    return Opened(Experiment(config, found[0], machine, folder), found[1])


def dry_run(phase: str, config: Config, folder: RunFolder, machine: Machine, fresh: bool) -> None:
    """Say what a phase would do and what that takes.

    Raises:
        UserError: what the phase itself would be refused for.
    """
    opened = open_undecoded(config, folder, machine)
    experiment = opened.experiment
    jobs = jobs_of(phase, config, folder)
    check(phase, experiment, fresh)
    names, present = [job.name for job in jobs], folder.present()
    outdated = with_dependents(config, names, present) if fresh else []
    removed = [name for name in outdated if name in present]
    say(describe(jobs, experiment, removed))
    show_cues(experiment)
    tasks = [Task(job, experiment, _nothing_to_do(job.name, experiment, removed)) for job in jobs]
    say(table(estimate(tasks, machine.quiet, opened.decoding)))
    say(about(config))
    say("dry run: nothing was trained, no run folder was written")


def _nothing_to_do(name: JobName, experiment: Experiment, removed: list[JobName]) -> bool:
    finished = experiment.folder.job(name).finished and name not in removed
    return finished or (name == TEACHER and is_given(experiment))


def show_cues(experiment: Experiment) -> None:
    """Write a contact sheet of planted cues beside the run's folder."""
    if experiment.config.shortcut.cue != "none" and distributed.rank() == 0:
        path = experiment.folder.path.with_name(f"{experiment.config.name}-cues.png")
        write_contact_sheet(experiment.data, path)
        say(f"contact sheet: {path}")
