"""What a command would do (`--dry-run`): its jobs, their length, and memory and disk by arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from dataset.cues.contact_sheet import write_contact_sheet
from models.zoo import count_parameters
from settings.loss_options import title_of
from settings.reading import to_yaml
from training import distributed
from training.checks import make_losses
from training.experiment import Experiment
from training.job_name import TEACHER, JobName
from training.memory import cache_bytes, list_needs
from training.phases import Job, say
from training.run.claim import check_config, find_outdated
from training.teacher import is_given


def show_plan(jobs: list[Job], experiment: Experiment, fresh: bool, resume: bool = False) -> None:
    """Print what would be done, and draw planted cues on a sheet beside the run's folder.

    Raises:
        UserError: the run was made with another config.
    """
    config, folder = experiment.config, experiment.folder
    outdated = find_outdated(folder, config, [job.name for job in jobs]) if fresh else []
    kept = [job for job in folder.present() if job not in outdated]
    check_config(folder, config, kept, fresh=fresh, resume=resume)
    say(describe(jobs, experiment, outdated))
    if config.shortcut.cue != "none" and distributed.rank() == 0:
        path = folder.path.with_name(f"{config.name}-cues.png")
        write_contact_sheet(experiment.data, path)
        say(f"contact sheet: {path}")
    say("dry run: nothing was trained, no run folder was written")


def describe(jobs: list[Job], experiment: Experiment, removed: Sequence[JobName] = ()) -> str:
    """Return the resolved config and what would be done.

    removed: jobs that are there and would be removed first, as `--fresh` asks for.
    """
    config, data = experiment.config, experiment.data
    lines = [to_yaml(config)]
    for title, network in (("teacher", config.teacher), ("student", config.student)):
        lines.append(f"{title}: {network.arch}, {count_parameters(experiment.layout(network).model):,} parameters")
    sizes = [len(data.train), len(data.val) if data.val else 0, len(data.test)]
    lines.append("images: {:,} train, {:,} val, {:,} test".format(*sizes) + f", {data.num_classes} classes")
    lines.append(f"machine: {experiment.machine.device}, {experiment.machine.precision}")
    for job in jobs:
        kept = job.folder.finished and job.name not in removed
        most = "at most " if job.stage.early_stopping is not None else ""
        trains = f"{most}{job.stage.epochs} epochs x {job.steps(data)} steps, {_describe_losses(experiment, job)}"
        state = "finished" if kept else trains
        if job.name == TEACHER and is_given(experiment) and not kept:
            state = "given by the config, not trained"
        lines.append(f"{job.name.title}: {state} -> {job.folder.path}")
    lines.append(_describe_sizes(jobs, experiment))
    return "\n".join([*lines, *(f"--fresh removes {experiment.folder.job(name).path}" for name in removed)])


def _describe_losses(experiment: Experiment, job: Job) -> str:
    """Return what a job trains, by which losses, and what these need."""
    losses = make_losses(experiment, job).values()
    weighted = ", ".join(f"{title_of(name)} {use.weight:g}" for name, use in job.stage.losses.items())
    needs = {
        "labels": any(loss.needs_labels for loss in losses),
        "teacher": any(loss.needs_teacher for loss in losses),
        "maps": any(loss.needs_maps for loss in losses),
        "a first pass": any(loss.first_pass != "none" for loss in losses),
    }
    return f"{job.stage.train} by {weighted} (from {', '.join(name for name, is_so in needs.items() if is_so)})"


def _describe_sizes(jobs: list[Job], experiment: Experiment) -> str:
    found = []
    for job in jobs:
        layout = experiment.layout(experiment.network_of(job.name))
        needs = list_needs(experiment, make_losses(experiment, job), layout, job.stage.batch_size)
        if needs:
            found.append(f"{job.name.short} {sum(need.bytes for _, need in needs) / 1e6:,.2f} MB")
    cached = cache_bytes(experiment) if any(job.name != TEACHER for job in jobs) else 0
    kept = ", ".join(dict.fromkeys(found)) or "nothing"
    return f"losses keep in memory: {kept}; teacher's outputs on disk: {cached / 1e6:,.2f} MB"
