"""On a GPU, where there is one: the same results as on a CPU, again and again, without waiting in a step.

What can be is run on the CPU too, so that a mistake in a test shows on every machine. Serves no module alone, and
dataset/transfer.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, count, islice

import pytest
import torch
from tqdm import tqdm

from dataset.images import Batch
from dataset.loader import iter_imageless_batches, iter_training_batches
from dataset.prepare import prepare
from dataset.sources import load_source
from dataset.transfer import to_device
from models.checkpoint import load
from models.machine import compute_reproducibly
from settings.methods import list_shipped
from settings.reading import DEFAULT_CONFIG, load_config
from tests.cuda.waiting import forbid_waiting
from tests.training.untrained import prepare_job
from training.engine import train_one_epoch
from training.experiment import Experiment
from training.job_name import TEACHER, JobName
from training.progress import EpochProgress
from training.setup import TrainingSetup, train_stage
from training.stage import StageObjective
from training.stepping import make_stepper

CAPTURED = "cuda, captured"
DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.cuda)]
on_each = pytest.mark.parametrize("device", DEVICES)
on_each_way = pytest.mark.parametrize("device", [*DEVICES, pytest.param(CAPTURED, marks=pytest.mark.cuda)])

STAGE1, STAGE2 = (JobName("two_stage", 0, number) for number in (1, 2))
REGRESSION = "methods.two_stage.stage1.losses={crd: false, regression: 1}"
REUSE = "methods.two_stage.stage2.losses={kl: false, ce: false, reuse: 1}"
HEAD = "methods.two_stage.stage2.train=head"

JOBS: dict[str, tuple[JobName, list[str]]] = {
    "teacher": (TEACHER, []),
    "teacher, several batches a step": (TEACHER, ["teacher.optimizer.accumulate=2"]),
    "teacher, averaged": (TEACHER, ["teacher.optimizer.ema=0.9"]),
    "bank, exact": (STAGE1, []),
    "bank, relax": (STAGE1, ["losses.crd.mode=relax"]),
    "shared, infonce": (STAGE1, ["losses.crd.negatives=shared", "losses.crd.objective=infonce"]),
    "in the batch": (STAGE1, ["losses.crd={negatives: batch, objective: infonce, mode: instance}"]),
    "by regression": (STAGE1, [REGRESSION]),
    "last block, adam": (STAGE2, ["methods.two_stage.stage2.optimizer.clip_norm=1.0"]),
    "head": (STAGE2, [HEAD]),
    "head, cached": (STAGE2, [HEAD, "teacher.cached_views=2"]),
    "head, the teacher's classifier": (STAGE2, [HEAD, REUSE]),
    "scratch, errors count more": (JobName("scratch", 0), ["methods.scratch.upweight_errors_of=kd"]),
    "crd_kd, cached": (JobName("crd_kd", 0), ["teacher.cached_views=2"]),
    "crd_kd, ramped up and faded": (JobName("crd_kd", 0), ["methods.crd_kd.losses.crd={ramp_up: 2, fade: true}"]),
    "kd, mixup": (JobName("kd", 0), ["data.mix=mixup"]),
    "kd, erasing": (JobName("kd", 0), ["data.mix=erasing"]),
    "kd, tints": (JobName("kd", 0), ["shortcut.cue=tint"]),
    "kd, backgrounds": (JobName("kd", 0), ["shortcut.cue=background"]),
    "kd, cues": (JobName("kd", 0), ["shortcut.cue=patch", "shortcut.pairs=counterfactual"]),
}
SHIPPED = {
    f"shipped, {name} stage{number}": (JobName(name, 0, number if count > 1 else 0), [f"methods.{name}={{}}"])
    for name in list_shipped()
    for count in [len(load_config(DEFAULT_CONFIG, [f"methods.{name}={{}}"]).stages[name])]
    for number in range(1, count + 1)
}
JOBS |= SHIPPED
jobs = pytest.mark.parametrize(("name", "settings"), JOBS.values(), ids=JOBS.keys())


@pytest.fixture
def on(make_experiment, monkeypatch):
    """`on("cuda", "training.epochs=3")`: the tiny experiment on a device, with plain float32 products."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def make(device: str, *settings: str, **given) -> Experiment:
        experiment, place = make_experiment(*settings, **given), torch.device(device.partition(",")[0])
        config = experiment.config
        compute_reproducibly(place)
        data = prepare(load_source(config.data), config.data, place, config.shortcut)
        machine = replace(experiment.machine, device=place, capture=device == CAPTURED)
        return replace(experiment, data=data, machine=machine)

    return make


def format_batches(prepared: TrainingSetup) -> Iterator[Batch]:
    plan = prepared.plan
    made = iter_training_batches if prepared.objective.sees_images else iter_imageless_batches
    return chain.from_iterable(
        made(prepared.data, plan.batch_size, plan.seed, epoch, plan.select_view(0)) for epoch in count()
    )


def make_steps(prepared: TrainingSetup, experiment: Experiment, batches: Iterator[Batch]) -> dict[str, float]:
    """Train on some batches as an epoch does; gives the mean of every term."""
    settings, objective, machine = prepared.plan.optimizer, prepared.objective, experiment.machine
    prepared.compile_or_capture(machine)
    stepper = make_stepper(objective, objective.make_parameter_groups(settings.lr), settings, 1000, 1000, machine)
    objective.train()
    objective.epoch = 0  # in which ramps have begun
    return train_one_epoch(
        objective, batches, stepper, machine, tqdm(disable=True), EpochProgress(rate=settings.lr)
    )


@on_each_way
@jobs
def test_no_step_waits_for_the_device(on, device, name, settings) -> None:
    experiment = on(device, *settings)
    prepared = prepare_job(name, experiment)
    train, objective = prepared.data.train, prepared.objective
    there = [train.labels, train.pixels, *objective.parameters(), *objective.buffers()]
    there += [] if train.cues is None else [train.cues.image_cues]
    watch = forbid_waiting(experiment.machine.device, there)

    def watched() -> Iterator[Batch]:
        batches = format_batches(prepared)
        yield from islice(batches, 2)  # the first prepare what later ones use
        with watch:
            yield from islice(batches, 5)
        # the mean of the terms is asked for after the last

    with closing(watched()) as some:
        means = make_steps(prepared, experiment, some)
    assert all(math.isfinite(value) for value in means.values())


@on_each
def test_a_step_that_waits_is_found(on, device, monkeypatch) -> None:
    forward = StageObjective.forward

    def asking(objective, batch):
        terms = forward(objective, batch)
        assert terms["ce"].value.item() > 0
        return terms

    monkeypatch.setattr(StageObjective, "forward", asking)
    experiment = on(device)
    objective = prepare_job(TEACHER, experiment).objective
    batch = next(iter_training_batches(experiment.data, 16, 0, 0, 0))
    objective(batch)
    waits = pytest.raises((AssertionError, RuntimeError), match="reads a value|reads values|synchroniz")
    with waits, forbid_waiting(experiment.machine.device, objective.parameters()):
        objective(batch)


@on_each_way
@jobs
def test_losses_are_those_of_a_cpu(on, device, name, settings) -> None:
    found = []
    for place in ("cpu", device):
        experiment = on(place, *settings)
        prepared = prepare_job(name, experiment)
        torch.manual_seed(4)
        found.append(make_steps(prepared, experiment, islice(format_batches(prepared), 4)))
    assert found[1] == pytest.approx(found[0], rel=2e-3, abs=2e-3)


@pytest.mark.parametrize(
    ("device", "precision", "capture"),
    [
        ("cpu", "float32", "false"),
        *(
            pytest.param("cuda", precision, capture, marks=pytest.mark.cuda)
            for precision in ("float32", "bfloat16", "float16")
            for capture in ("false", "true")
        ),
    ],
)
def test_the_whole_pipeline_runs(call_main, tmp_path, device, precision, capture) -> None:
    config = ("--config", str(DEFAULT_CONFIG)) if device == "cuda" else ()
    settings = (
        "teacher.epochs=2",
        "training.epochs=3",
        "methods.two_stage.stage2.epochs=1",
        "methods=[two_stage, crd_kd]",
        f"precision={precision}",
        f"cuda_graphs={capture}",
        "name=gpu",
    )
    done = call_main(tmp_path, "--phase", "all", "--device", device, "--quiet", *config, "--set", *settings)
    assert done.returncode == 0, done.stderr
    for job in ("teacher", "seed0/two_stage/stage1", "seed0/two_stage/stage2", "seed0/crd_kd"):
        result = json.loads((tmp_path / "gpu" / job / "result.json").read_text())
        weights = load(tmp_path / "gpu" / job / "model.pt")
        assert result["epochs"] >= 1 and all(value.device.type == "cpu" for value in weights.values())


class StoppedError(Exception):
    """Stands for a kill."""


@on_each_way
@pytest.mark.parametrize("job", [TEACHER, STAGE1, STAGE2], ids=["teacher", "stage1", "stage2"])
def test_a_resumed_training_ends_with_the_same_bits(on, device, job, tmp_path, monkeypatch) -> None:
    ends = []
    for kind in ("whole", "stopped"):
        experiment = on(device, "teacher.epochs=2", runs=tmp_path / kind)
        prepare_job(job, experiment)  # finishes what comes before
        if kind == "stopped":
            with monkeypatch.context() as patch, pytest.raises(StoppedError):
                patch.setattr("training.run.checkpointer.JobCheckpointer.save", _stops_at_the_second())
                train_stage(experiment, job)
        train_stage(experiment, job)
        ends.append(load(experiment.folder.get_job(job).model))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def _stops_at_the_second():
    from training.run.checkpointer import JobCheckpointer

    save, saved = JobCheckpointer.save, []

    def once(checkpointer, state):
        if saved:
            raise StoppedError
        saved.append(save(checkpointer, state))

    return once


@on_each_way
def test_two_trainings_have_the_same_bits(on, device, tmp_path, recwarn) -> None:
    ends = []
    for name in ("first", "second"):
        experiment = on(device, "teacher.epochs=1", runs=tmp_path / name)
        train_stage(experiment, TEACHER)
        ends.append(load(experiment.folder.teacher.model))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert not [one for one in recwarn if "deterministic" in str(one.message)]


@on_each
def test_images_and_banks_lie_on_the_device(on, device) -> None:
    experiment = on(device)
    prepared = prepare_job(STAGE1, experiment)
    tensors = [experiment.data.train.pixels, experiment.data.train.labels, *prepared.objective.buffers()]
    assert {tensor.device.type for tensor in tensors} == {device}
    assert prepared.objective.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    moved = to_device(torch.arange(3), experiment.machine.device)
    assert moved.device.type == device and moved.tolist() == [0, 1, 2]
    assert to_device(moved, experiment.machine.device) is moved


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_compiled_blocks_train_on_a_gpu(on, tmp_path) -> None:
    experiment = on("cuda", "teacher.epochs=1", runs=tmp_path)
    train_stage(replace(experiment, machine=replace(experiment.machine, compile=True)), TEACHER)
    assert experiment.folder.teacher.is_finished
