"""What each job of a phase will take of time, memory and disk on this machine, for `--dry-run`.

Letters: N training images.
"""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from configs.schema import Config
from dataset.sample import Decoding
from training import distributed
from training.baselines import TERMS
from training.experiment import Experiment
from training.job_name import TEACHER, JobName, config_of
from training.phases import Job
from training.rehearsal import Rehearsal, rehearse
from training.stand_ins import StandIns, rows_of
from training.teacher_outputs import missing_views

SECONDS = 20.0  # that all rehearsals together take, about
CHECKPOINTS = 2  # that are kept while a job trains
FREE = {  # settings that change no step's cost, whatever their value
    *("seeds", "seed", "epochs", "lr", "momentum", "weight_decay", "gamma", "milestones", "schedule"),
    *("temperature", "bank_momentum", "ridge", "whitening", "feature_lr", "patience", "min_delta", "until"),
    *("error_weight", "checkpoint_minutes", "study", "variants", "methods", "warmup"),
}
SWITCHES = {  # those of which only matters whether they are 0
    *("lambda_penultimate", "lambda_last", "alpha", "crd_weight", "label_smoothing"),
}


@dataclass(frozen=True)
class Estimate:
    """A line of the table: what a job takes, or what is made before the jobs. Bytes and seconds."""

    what: str
    images: int = 0  # of an epoch
    epochs: int = 0  # that are left
    seconds: float = 0.0
    memory: int = 0
    gpu: int = 0
    disk: int = 0  # that stays
    working: int = 0  # more, until the job is done
    note: str = ""
    count: int = 1  # jobs alike


@dataclass(frozen=True)
class Task:
    """A job that may have to be trained, and how many others are like it."""

    job: Job
    experiment: Experiment
    kept: bool  # nothing is left to do
    count: int = 1

    @property
    def kind(self) -> Hashable:
        return alike(self.experiment.config, self.job.name)


def estimate(
    tasks: Sequence[Task], quiet: bool, decoding: Decoding | None = None, seconds: float | None = None
) -> list[Estimate]:
    """What decoding, the teacher's cached outputs and the jobs take. What is done already takes nothing.

    seconds: that the rehearsals have together, `SECONDS` where it is None; jobs alike share one.
    """
    seconds = SECONDS if seconds is None else seconds
    found = [] if decoding is None else [_of_decoding(decoding)]
    waiting = [task for task in tasks if not task.kept]
    kinds = {task.kind: task for task in reversed(waiting)}  # the first of each kind
    until = time.perf_counter() + seconds
    rehearsals: dict[Hashable, Rehearsal] = {}
    with tqdm(
        total=len(kinds),
        desc=f"trying steps, about {seconds:.0f} s",
        leave=False,
        disable=quiet or None,
        unit="job",
    ) as bar:
        cached = _of_teacher_outputs(waiting, 0.1 * seconds)
        for number, (kind, task) in enumerate(reversed(kinds.items())):
            left = distributed.from_first(until - time.perf_counter())
            if left > -seconds / 2 or not _nearest(task, rehearsals, kinds):
                share = max(0.1, left / (len(kinds) - number))
                rehearsals[kind] = rehearse(task.job.name, task.experiment, share)
            bar.update()
    lines = [_line(task, rehearsals, kinds) for task in tasks]
    images = decoding.more_memory if decoding else 0
    return found + cached + [replace(line, memory=line.memory + images) if line.memory else line for line in lines]


def alike(config: Config, name: JobName) -> Hashable:
    """Equal for jobs whose steps cost the same. `config` is the run's."""
    own = config_of(config, name)
    method = config.method_of(name.of) if name.kind == "baseline" else ""
    sections: dict[str, tuple[str, ...]] = {
        "teacher": ("crd", "kd", "baselines", "student"),
        "stage1": ("kd", "baselines"),
        "stage2": ("baselines",),
        "baseline": ("kd",) if method and TERMS[method].crd else ("kd", "crd"),
    }
    values = own.resolved().model_dump(mode="json", exclude={"name", *sections[name.kind]})
    values["shortcut"] = own.shortcut.cue, own.shortcut.pairs  # whose cue an image has costs nothing
    return name.kind, method, json.dumps(_costly(values), sort_keys=True)


def _costly(values: Any) -> Any:
    """Settings without those that change no cost."""
    if isinstance(values, dict):
        kept = {key: _costly(value) for key, value in values.items() if key not in FREE}
        return {key: bool(value) if key in SWITCHES else value for key, value in kept.items()}
    return [_costly(value) for value in values] if isinstance(values, list) else values


def _nearest(
    task: Task, rehearsals: dict[Hashable, Rehearsal], kinds: dict[Hashable, Task]
) -> tuple[Task, Rehearsal] | None:
    """A job of the same kind that was tried, for one that there was no time for."""
    like = [kind for kind in rehearsals if kinds[kind].job.name.kind == task.job.name.kind]
    return (kinds[like[0]], rehearsals[like[0]]) if like else None


def _line(task: Task, rehearsals: dict[Hashable, Rehearsal], kinds: dict[Hashable, Task]) -> Estimate:
    job = task.job
    if task.kept:
        given = job.name == TEACHER and not job.folder.finished
        return Estimate(job.name.title, note="given by the config" if given else "finished", count=task.count)
    own = rehearsals.get(task.kind)
    other = None if own else _nearest(task, rehearsals, kinds)
    tried = own or (other[1] if other else None)
    assert tried is not None  # of each kind of job one is tried
    done = min(job.epochs, job.folder.epochs_done()) if job.folder.unfinished else 0
    left = job.epochs - done
    notes = [f"{done} epochs done"] if done else []
    notes += [f"as {other[0].job.name.title}, not tried itself"] if other else []
    if own and own.batch < own.whole_batch:
        notes.append(f"from {own.batch} images a step, not {own.whole_batch}")
    return Estimate(
        job.name.title,
        tried.images,
        left,
        tried.start + left * tried.epoch + tried.end,
        tried.memory,
        tried.gpu,
        tried.weights,
        CHECKPOINTS * tried.checkpoint,
        ", ".join(notes),
        task.count,
    )


def _of_decoding(decoding: Decoding) -> Estimate:
    return Estimate(
        "decoding, once",
        decoding.images,
        1,
        decoding.images * decoding.seconds_an_image,
        decoding.bytes,
        disk=decoding.bytes,
        note=f"from {decoding.tried} images",
    )


def _of_teacher_outputs(tasks: Sequence[Task], limit: float) -> list[Estimate]:
    """The views that the cache lacks, which the first job that asks for them fills."""
    asking = [task for task in tasks if _asks_teacher(task)]
    if not asking or not asking[0].experiment.config.teacher.views:
        return []
    experiment = asking[0].experiment
    config, data, machine = experiment.config, experiment.data, experiment.machine
    given = StandIns(machine, limit)
    teacher = experiment.tapped(given.teacher(experiment), config.teacher)
    views, images = missing_views(experiment), len(data.train)
    if not views:
        return [Estimate("teacher's outputs", note="cached")]
    seconds = views * given.pass_of(rows_of(teacher, data, machine), images)
    width = data.num_classes + sum(teacher.tap_dims(config.data.image_size))
    return [Estimate("teacher's outputs, once", images, views, seconds, disk=views * images * width * 2)]


def _asks_teacher(task: Task) -> bool:
    name, config = task.job.name, task.experiment.config
    if name.kind == "teacher":
        return False
    return name.kind != "baseline" or config.method_of(name.of) != "scratch"
