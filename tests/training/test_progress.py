"""Of training/progress.py and training/run/keeping.py: a training that stops within an epoch and goes on."""

from __future__ import annotations

import os
import signal

import pytest
import torch

import training.engine
import training.run.keeping
from errors import StoppedError, UserError, exit_code
from models.checkpoint import load, save
from training import distributed
from training.job_name import TEACHER
from training.phases import jobs_of, run_jobs
from training.prepared import train
from training.progress import Part, part_from
from training.run.job_folder import JobFolder
from training.run.keeping import Keeper
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
    "bank, nce, exact": (STAGE1, TWO),
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
    "kd, erasing": (SINGLE, "methods=[kd]", "methods.kd.epochs=2", "data.mix=erasing"),
}


def files(experiment):
    """Bytes of what a run's jobs left, by path."""
    root = experiment.folder.path
    return {str(path.relative_to(root)): path.read_bytes() for name in FILES for path in sorted(root.rglob(name))}


def train_all(experiment, phases):
    for phase in phases:
        run_jobs(jobs_of(phase, experiment.config, experiment.folder), experiment)


@pytest.fixture
def steps(monkeypatch):
    """What was done of each step; a call of `steps.stop_before(3)` stops each start before its third one."""

    class Steps(list):
        def stop_before(self, number):
            self.start, self.number = len(self), number

    step, done = training.engine.train_step, Steps()
    done.stop_before(10**9)

    def stopping(*arguments):
        if len(done) - done.start == done.number - 1:
            raise StoppedError(signal.SIGTERM)
        values = step(*arguments)
        done.append(values)
        return values

    monkeypatch.setattr(training.engine, "train_step", stopping)
    return done


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_stopped_within_its_epochs_each_kind_ends_with_the_same_bytes(make_experiment, steps, kind):
    phases, *settings = kind
    whole = make_experiment("name=whole", *SHORT, *settings)
    train_all(whole, phases)
    count = len(steps)
    stopped = make_experiment("name=stopped", *SHORT, *settings, AFTER_EVERY_STEP)
    starts = 0
    while starts <= count:
        starts += 1
        steps.stop_before(APART + 1)
        try:
            train_all(stopped, phases)
        except StoppedError:
            continue
        break
    assert starts == -(-count // APART) > 1 and len(steps) == 2 * count  # no step is done twice
    assert files(whole) == files(stopped) and len(files(whole)) >= 6


def test_what_is_drawn_in_a_step_goes_on_too(make_experiment, steps, monkeypatch):
    forward, drawn = StageObjective.forward, []

    def drawing(self, batch):
        drawn.append(torch.rand(2).tolist())
        return forward(self, batch)

    monkeypatch.setattr(StageObjective, "forward", drawing)
    train(make_experiment("name=whole", "teacher.epochs=2"), TEACHER)
    whole, stopped = drawn.copy(), make_experiment("name=stopped", "teacher.epochs=2", AFTER_EVERY_STEP)
    for number in (3, 4, 100):
        steps.stop_before(number)
        with pytest.raises(StoppedError) if number < 100 else pytest.MonkeyPatch.context():
            train(stopped, TEACHER)
    assert drawn == 2 * whole


@pytest.mark.parametrize("minutes", [0, 15])
def test_a_signal_has_the_step_kept_where_that_takes_less_time_than_it_saves(
    make_experiment, steps, monkeypatch, capsys, minutes
):
    whole = make_experiment("name=whole", "teacher.epochs=2")
    train(whole, TEACHER)
    stopped = make_experiment("name=stopped", "teacher.epochs=2", f"checkpoint_minutes={minutes}")
    folder = stopped.folder.teacher

    def start(before, cost):
        """Signalled within a step; gives the epochs and steps that the checkpoint holds then."""
        step = training.engine.train_step

        def signalled(*arguments):
            if len(steps) == before:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(training.engine, "train_step", signalled)
            patch.setattr(Keeper, "write", lambda self: (write(self), setattr(self, "cost", cost)))
            assert exit_code(lambda: train(stopped, TEACHER)) == 143
        assert "run again with --resume to go on" in capsys.readouterr().err
        state = load(folder.checkpoint)
        return len(state["history"]), state["part"] and state["part"]["steps"]

    write = Keeper.write
    assert start(len(steps) + 1, 0.0) == (0, 2)
    assert start(len(steps) + 3, 1e9) == (1, None)  # the second step of the next epoch is done again
    assert start(len(steps) + 3, 0.0) == (1, 4)  # all of an epoch, which is left to be measured
    assert exit_code(lambda: train(stopped, TEACHER)) == 0
    assert files(whole) == files(stopped) and len(steps) == 8 + 8 + 2


def test_checkpoints_within_an_epoch_come_by_the_clock(make_experiment, monkeypatch):
    now, kept, save = [0.0], [], JobFolder.save

    def saving(self, training):
        kept.append(training.part and training.part.steps)
        save(self, training)

    def clock():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(training.run.keeping.time, "perf_counter", clock)
    monkeypatch.setattr(JobFolder, "save", saving)
    short = ("teacher.epochs=1", "teacher.batch_size=2", "checkpoint_minutes=0.15")
    train(make_experiment(*short), TEACHER)
    apart = [after - before for before, after in zip(kept, kept[1:-1], strict=False)]
    assert kept[-1] is None and len(kept) >= 3 and len(set(apart)) == 1 and apart[0] > 1, kept


def test_nothing_that_diverged_is_kept_within_an_epoch(make_experiment, monkeypatch):
    forward, seen = StageObjective.forward, []

    def exploding(self, batch):
        terms = forward(self, batch)
        seen.append(batch)
        return {name: type(one)(one.value * (torch.inf if len(seen) == 7 else 1), one.weight) for name, one in
                terms.items()}  # fmt: skip

    monkeypatch.setattr(StageObjective, "forward", exploding)
    experiment = make_experiment("teacher.epochs=2", AFTER_EVERY_STEP)
    with pytest.raises(UserError, match=r"diverged in epoch 2, step 3 of 4: ce became inf .*; its step 2 is kept"):
        train(experiment, TEACHER)
    train(experiment, TEACHER)
    assert len(seen) == 9 and len(experiment.folder.teacher.history()) == 2


def test_a_part_that_does_not_fit_is_refused_and_other_processes_go_on_with_a_word(
    make_experiment, steps, monkeypatch, capsys
):
    experiment = make_experiment("teacher.epochs=1", AFTER_EVERY_STEP)
    steps.stop_before(4)
    with pytest.raises(StoppedError):
        train(experiment, TEACHER)
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
            train(experiment, TEACHER)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    own = {"sums": {"ce": 1.0}, "generators": {"cpu": torch.get_rng_state()}}
    three = {"rate": 0.1, "steps": 3, "seconds": 1.0, "processes": [{**own, "sums": {"ce": n}} for n in (1, 2, 6)]}
    part = part_from(three, torch.device("cpu"))
    assert part.sums["ce"].item() == 3 and part.generators is None
    assert "that 3 processes began, with 2" in capsys.readouterr().err


def test_seconds_of_an_epoch_leave_out_the_time_between_two_starts():
    part = Part(rate=0.1, seconds=100.0)
    again = part_from({**part.state(torch.device("cpu")), "steps": 1}, torch.device("cpu"))
    assert 100 <= again.seconds < 160 and again.elapsed >= again.seconds
