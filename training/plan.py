"""The plan of a command: its header, and the dry run with its cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from dataset.cues.contact_sheet import write_contact_sheet
from models.zoo import count_parameters
from settings.loss_options import get_loss_title
from settings.reading import to_yaml
from training import distributed
from training.checks import make_losses
from training.distributed import print_rank0
from training.experiment import Experiment
from training.job_name import TEACHER, JobName, find_last_job
from training.memory import count_cache_bytes, list_needs
from training.phases import Job, list_waiting
from training.run.prepare import check_config, find_outdated
from training.teacher import is_given

SCRATCH = "scratch"  # the shipped method without a teacher


def describe_command(jobs: Sequence[Job], experiment: Experiment, removed: Sequence[JobName] = ()) -> list[str]:
    """Return the header of a command: data, networks, machine and plan.

    removed: jobs that `--fresh` would remove first, in a dry run.
    """
    config, data, machine = experiment.config, experiment.data, experiment.machine
    where = "" if config.data.root is None else f" in {config.data.root}"
    train, val, test = len(data.train), len(data.val) if data.val else 0, len(data.test)
    sizes = [
        count_parameters(experiment.find_layout(network).model) for network in (config.teacher, config.student)
    ]
    count, waiting = distributed.world_size(), list_waiting(jobs, experiment, removed)
    methods = ", ".join(dict.fromkeys(job.name.method for job in jobs))
    seeds = [str(seed) for seed in dict.fromkeys(job.name.seed for job in jobs) if seed is not None]
    of_seeds = f"; seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else ""
    epochs = sum(job.stage.epochs for job in waiting)
    return [
        f"data: {config.data.source}{where}, {train:,} train, {val:,} val, {test:,} test images, "
        f"{data.num_classes} classes",
        *([repeated] if (repeated := data.repeats.describe()) else []),
        f"teacher: {config.teacher.arch}, {sizes[0]:,} parameters",
        f"student: {config.student.arch}, {sizes[1]:,} parameters",
        f"machine: {machine.device}, {machine.precision}, {count} process{'es' if count > 1 else ''}",
        f"plan: {methods}{of_seeds}; {len(waiting)} of {len(jobs)} jobs to train, {epochs} epochs",
    ]


def describe_weak_teacher(experiment: Experiment) -> str | None:
    """Return a line on a teacher that is worse than `scratch`, None for a better one.

    The accuracy of the finished students is averaged over seeds, on validation images where there are some,
    otherwise on test images.
    """
    config, folder = experiment.config, experiment.folder
    scratch = [find_last_job(config, SCRATCH, seed) for seed in config.seeds] if SCRATCH in config.methods else []
    students = [folder.get_job(job).read_result() for job in scratch if folder.get_job(job).is_finished]
    if not students or not folder.teacher.is_finished:
        return None
    teacher = folder.teacher.read_result()
    splits = [one for one in ("val", "test") if all(f"{one}_top1" in result for result in (teacher, *students))]
    if not splits:
        return None
    top1 = f"{splits[0]}_top1"
    gap = 100 * (fmean(result[top1] for result in students) - teacher[top1])
    if round(gap, 1) <= 0:
        return None
    images = "validation" if splits[0] == "val" else "test"
    return (
        f"teacher is {gap:.1f} points below scratch on {images} images: "
        "distillation from it cannot be expected to help"
    )


def show_plan(jobs: list[Job], experiment: Experiment, fresh: bool, resume: bool = False) -> None:
    """Print the plan and its cost; draw planted cues beside the run's folder.

    Raises:
        UserError: the run was made with another config.
    """
    config, folder = experiment.config, experiment.folder
    outdated = find_outdated(folder, config, [job.name for job in jobs]) if fresh else []
    kept = [job for job in folder.list_present_jobs() if job not in outdated]
    check_config(folder, config, kept, fresh=fresh, resume=resume)
    print_rank0(describe_plan(jobs, experiment, outdated))
    if config.shortcut.cue != "none" and distributed.rank() == 0:
        path = folder.path.with_name(f"{config.name}-cues.png")
        write_contact_sheet(experiment.data, path)
        print_rank0(f"contact sheet: {path}")
    print_rank0("dry run: nothing was trained, no run folder was written")


def describe_plan(jobs: list[Job], experiment: Experiment, removed: Sequence[JobName] = ()) -> str:
    """Return the resolved config, the header, a line for each job, and the cost.

    removed: finished jobs that `--fresh` would remove first.
    """
    lines = [to_yaml(experiment.config), *describe_command(jobs, experiment, removed)]
    for job in jobs:
        is_kept = job.folder.is_finished and job.name not in removed
        most = "at most " if job.stage.early_stopping is not None else ""
        losses = ", ".join(f"{get_loss_title(name)} {use.weight:g}" for name, use in job.stage.losses.items())
        steps = f"{job.stage.epochs} epochs x {job.count_steps(experiment.data)} steps"
        state = "finished" if is_kept else f"{most}{steps}, {job.stage.train} by {losses}"
        if job.name == TEACHER and is_given(experiment) and not is_kept:
            state = "given by the config, not trained"
        lines.append(f"{job.name.title}: {state} -> {job.folder.path}")
    lines.append(_describe_cost(jobs, experiment))
    return "\n".join([*lines, *(f"--fresh removes {experiment.folder.get_job(name).path}" for name in removed)])


def _describe_cost(jobs: list[Job], experiment: Experiment) -> str:
    costs = []
    for job in jobs:
        layout = experiment.find_layout(experiment.find_network(job.name))
        needs = list_needs(experiment, make_losses(experiment, job), layout, job.stage.batch_size)
        if needs:
            costs.append(f"{job.name.short} {sum(need.bytes for _, need in needs) / 1e6:,.2f} MB")
    cached = count_cache_bytes(experiment) if any(job.name != TEACHER for job in jobs) else 0
    memory = ", ".join(dict.fromkeys(costs)) or "nothing"
    return f"losses keep in memory: {memory}; teacher's outputs on disk: {cached / 1e6:,.2f} MB"
