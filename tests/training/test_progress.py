"""A training that stops within an epoch and resumes. Of training/progress.py, training/run/checkpointer.py."""

from __future__ import annotations

import os
import signal

import pytest
import torch

import training.engine
import training.run.checkpointer
from errors import StoppedError, UserError, run_command
from models.checkpoint import load, save
from training import distributed
from training.job_name import TEACHER
from training.phases import list_phase_jobs, run_jobs
from training.progress import EpochProgress, check_history, restore_progress
from training.run.checkpointer import JobCheckpointer
from training.setup import train_stage
from training.stage import StageObjective

SHORT = ("teacher.epochs=1", "training.epochs=4")  # two a stage of two_stage
APART = 7  # steps from stop to stop, of four an epoch
AFTER_EVERY_STEP = "checkpoint_minutes=1e-9"
IN_BATCH = "losses.crd={objective: infonce, negatives: batch, mode: instance}"
FILES = ("model.pt", "metrics.jsonl", "result.json", "projections.pt")
STAGE1, BOTH, SINGLE = ("teacher", "crd"), ("teacher", "crd", "kd"), ("teacher", "baselines")
TWO = "methods=[two_stage]"
SEVERAL = "{accumulate: 3, ema: 0.9, clip_norm: 1, warmup: 0.5}"
KINDS = {
    "bank, nce, relax, filled": (
        STAGE1,
        TWO,
        "losses.crd={mode: relax, bank_init: features}",
        "teacher.cached_views=2",
    ),
    "bank, infonce, shared": (
        STAGE1,
        TWO,
        "losses.crd={objective: infonce, negatives: shared}",
        "methods.two_stage.stage1.optimizer.schedule=onecycle",
    ),
    "batch, weighted": (
        ("teacher", "baselines", "crd"),
        "methods=[two_stage, scratch]",
        IN_BATCH,
        "methods.scratch.epochs=2",
        "methods.two_stage.stage1.upweight_errors_of=scratch",
    ),
    "regression": (STAGE1, TWO, "methods.two_stage.stage1.losses={crd: false, regression: 1}", "data.mix=mixup"),
    "last block, ramped and faded": (
        BOTH,
        TWO,
        "methods.two_stage.stage2={optimizer: {schedule: cosine}, losses: {kl: {ramp_up: 2}, ce: {fade: true}}}",
    ),
    "head, reused classifier": (
        BOTH,
        TWO,
        "teacher.cached_views=2",
        "methods.two_stage.stage2.train=head",
        "methods.t={base: two_stage, stage2: {losses: {reuse: 1, kl: false, ce: false}}}",
    ),
    "crd_kd, mixup, validated": (
        SINGLE,
        "methods=[crd_kd]",
        "methods.crd_kd.epochs=2",
        "data.mix=mixup",
        "data.val_fraction=0.25",
    ),
    "all, several batches a step, averaged": (
        (*BOTH, "baselines"),
        "methods=[two_stage, crd]",
        "methods.crd.epochs=2",
        *(f"methods.{name}.optimizer={SEVERAL}" for name in ("two_stage", "crd")),
    ),
}


def read_files(experiment):
    """Return the bytes of what a run's jobs left, by path."""
    root = experiment.folder.path
    return {str(path.relative_to(root)): path.read_bytes() for name in FILES for path in sorted(root.rglob(name))}


def train_phases(experiment, phases):
    for phase in phases:
        run_jobs(list_phase_jobs(phase, experiment.config, experiment.folder), experiment)


@pytest.fixture
def steps(monkeypatch):
    """The steps made so far; after `steps.stop_before(3)` each start of a training stops before its third one."""

    class Steps(list):
        def stop_before(self, number):
            self.start, self.number = len(self), number

    step, done = training.engine.train_step, Steps()  # type: ignore[attr-defined]
    done.stop_before(10**9)

    def make_step(*arguments):
        if len(done) - done.start == done.number - 1:
            raise StoppedError(signal.SIGTERM)
        values = step(*arguments)
        done.append(values)
        return values

    monkeypatch.setattr(training.engine, "train_step", make_step)
    return done


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_resuming_within_epochs_gives_identical_files(make_experiment, steps, kind) -> None:
    phases, *settings = kind
    whole = make_experiment("name=whole", *SHORT, *settings)
    train_phases(whole, phases)
    count = len(steps)
    stopped = make_experiment("name=stopped", *SHORT, *settings, AFTER_EVERY_STEP)
    starts = 0
    while starts <= count:
        starts += 1
        steps.stop_before(APART + 1)
        try:
            train_phases(stopped, phases)
        except StoppedError:
            continue
        break
    assert starts == -(-count // APART) > 1 and len(steps) == 2 * count  # no step is done twice
    assert read_files(whole) == read_files(stopped) and len(read_files(whole)) >= 6


def test_random_numbers_of_a_step_are_resumed(make_experiment, steps, monkeypatch) -> None:
    forward, drawn = StageObjective.forward, []

    def draw(self, batch):
        drawn.append(torch.rand(2).tolist())
        return forward(self, batch)

    monkeypatch.setattr(StageObjective, "forward", draw)
    train_stage(make_experiment("name=whole", "teacher.epochs=2"), TEACHER)
    whole, stopped = drawn.copy(), make_experiment("name=stopped", "teacher.epochs=2", AFTER_EVERY_STEP)
    for number in (3, 4, 100):
        steps.stop_before(number)
        with pytest.raises(StoppedError) if number < 100 else pytest.MonkeyPatch.context():
            train_stage(stopped, TEACHER)
    assert drawn == 2 * whole


@pytest.mark.parametrize("minutes", [0, 15])
def test_a_signal_saves_the_step(make_experiment, steps, monkeypatch, capsys, minutes) -> None:
    whole = make_experiment("name=whole", "teacher.epochs=2")
    train_stage(whole, TEACHER)
    stopped = make_experiment("name=stopped", "teacher.epochs=2", f"checkpoint_minutes={minutes}")

    def start(before):
        """Send a signal within a step; return the epochs and steps in the checkpoint afterwards."""
        step = training.engine.train_step  # type: ignore[attr-defined]

        def make_step(*arguments):
            if len(steps) == before:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(training.engine, "train_step", make_step)
            assert run_command(lambda: train_stage(stopped, TEACHER)) == 143
        assert "run again with --resume to go on" in capsys.readouterr().err
        state = load(stopped.folder.teacher.checkpoint)
        return len(state["history"]), state["part"] and state["part"]["steps"]

    assert start(len(steps) + 1) == (0, 2)
    assert start(len(steps) + 5) == (1, 4)  # all of an epoch, which is not measured yet
    assert run_command(lambda: train_stage(stopped, TEACHER)) == 0
    assert read_files(whole) == read_files(stopped) and len(steps) == 8 + 8


def test_checkpoints_follow_the_clock(make_experiment, monkeypatch) -> None:
    now, kept, save_once = [0.0], [], JobCheckpointer.save

    def save_and_note(self, state):
        kept.append(state.progress and state.progress.steps)
        save_once(self, state)

    def read_clock():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(training.run.checkpointer.time, "perf_counter", read_clock)  # type: ignore[attr-defined]
    monkeypatch.setattr(JobCheckpointer, "save", save_and_note)
    train_stage(make_experiment("teacher.epochs=1", "teacher.batch_size=2", "checkpoint_minutes=0.15"), TEACHER)
    apart = [after - before for before, after in zip(kept, kept[1:-1], strict=False)]
    assert kept[-1] is None and len(kept) >= 3 and len(set(apart)) == 1 and apart[0] > 1, kept


def test_diverged_steps_are_not_saved(make_experiment, monkeypatch) -> None:
    forward, seen = StageObjective.forward, []

    def explode(self, batch):
        terms = forward(self, batch)
        seen.append(batch)
        factor = torch.inf if len(seen) == 7 else 1
        return {name: type(one)(one.value * factor, one.weight) for name, one in terms.items()}

    monkeypatch.setattr(StageObjective, "forward", explode)
    experiment = make_experiment("teacher.epochs=2", AFTER_EVERY_STEP)
    with pytest.raises(UserError, match=r"diverged in epoch 2, step 3 of 4: ce became inf .*; its step 2 is kept"):
        train_stage(experiment, TEACHER)
    train_stage(experiment, TEACHER)
    assert len(seen) == 9 and len(experiment.folder.teacher.read_history()) == 2


def test_a_checkpoint_that_does_not_fit_is_refused(make_experiment, steps) -> None:
    experiment = make_experiment("teacher.epochs=1", AFTER_EVERY_STEP)
    steps.stop_before(4)
    with pytest.raises(StoppedError):
        train_stage(experiment, TEACHER)
    checkpoint = experiment.folder.teacher.checkpoint
    state = load(checkpoint)
    for changed in (
        {"steps": 5},
        {"steps": 0},
        {"steps": "some"},
        {"processes": []},
        {"processes": [{"sums": {}, "generators": {"cpu": torch.zeros(3, dtype=torch.uint8)}}]},
    ):
        save(checkpoint, {**state, "part": {**state["part"], **changed}})
        with pytest.raises(UserError, match=r"checkpoint\.pt does not fit what is trained here"):
            train_stage(experiment, TEACHER)


def test_fewer_processes_resume_with_a_warning(monkeypatch, capsys) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    own = {"generators": {"cpu": torch.get_rng_state()}}
    processes = [{**own, "sums": {"ce": value}} for value in (1, 2, 6)]
    state = {"rate": 0.1, "steps": 3, "seconds": 1.0, "processes": processes}
    part = restore_progress(state, torch.device("cpu"))
    assert part.sums["ce"].item() == 3 and part.generators is None
    assert "that 3 processes began, with 2" in capsys.readouterr().err


def test_seconds_between_two_starts_do_not_count() -> None:
    part = EpochProgress(rate=0.1, seconds=100.0)
    again = restore_progress({**part.collect_state(torch.device("cpu")), "steps": 1}, torch.device("cpu"))
    assert 100 <= again.seconds < 160 and again.elapsed >= again.seconds


def test_a_history_holds_finite_numbers_by_epoch() -> None:
    lines = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 1e-9}]
    assert check_history(lines) == lines and check_history([]) == []
    for wrong in ({}, None, "a", [1], [[]], [{"epoch": "b"}], [{"epoch": 1, 2: 3}], [{"epoch": True}], [{}]):
        with pytest.raises(ValueError, match="epoch|valid"):
            check_history(wrong)
