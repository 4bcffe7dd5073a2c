"""Of training/estimates.py, and training/estimate_table.py, training/dry_run.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataset.sample import Decoding
from training import estimates
from training.estimate_table import duration, size, table, total
from training.estimates import Estimate, Task, alike, estimate
from training.job_name import TEACHER, JobName, baseline, stage1, stage2
from training.phases import jobs_of
from training.rehearsal import Rehearsal
from training.teacher import train_teacher
from training.teacher_outputs import teacher_outputs

TRIED = Rehearsal(
    images=64,
    start=1.0,
    epoch=2.0,
    end=0.5,
    memory=3_000,
    gpu=0,
    checkpoint=700,
    weights=100,
    batch=16,
    whole_batch=16,
)


@pytest.fixture
def tried(monkeypatch) -> list[JobName]:
    """Jobs that are rehearsed, each with the same result."""
    names: list[JobName] = []

    def rehearse(name, experiment, limit):
        names.append(name)
        return TRIED

    monkeypatch.setattr(estimates, "rehearse", rehearse)
    return names


def tasks_of(experiment, kept=()):
    jobs = jobs_of("all", experiment.config, experiment.folder)
    return [Task(job, experiment, job.name in kept) for job in jobs]


def test_a_job_takes_its_start_its_epochs_and_its_end(make_experiment, tried):
    lines = {line.what: line for line in estimate(tasks_of(make_experiment("crd.epochs=7")), quiet=True)}
    assert lines["stage1 seed 0"].seconds == 1 + 7 * 2 + 0.5
    assert lines["kd seed 0"].seconds == 1 + (7 + 2) * 2 + 0.5
    one = lines["teacher"]
    assert (one.images, one.epochs, one.memory, one.disk, one.working) == (64, 2, 3_000, 100, 2 * 700)


def test_what_is_finished_takes_nothing_and_what_is_begun_its_rest(make_experiment, tried):
    experiment = make_experiment("crd.epochs=7")
    begun = experiment.folder.job(stage1(0)).path
    begun.mkdir(parents=True)
    (begun / "metrics.jsonl").write_text("{}\n" * 3)
    teacher, one, *_ = estimate(tasks_of(experiment, kept=[TEACHER]), quiet=True)
    assert (teacher.seconds, teacher.disk, teacher.note) == (0, 0, "given by the config")
    assert one.seconds == 1 + 4 * 2 + 0.5 and one.note == "3 epochs done"
    assert TEACHER not in tried


def test_jobs_alike_are_tried_once(make_experiment, tried):
    variants = "variants={slow: {crd: {optimizer: {lr: 0.001}}}, wide: {crd: {dim: 16}}}"
    estimate(tasks_of(make_experiment("seeds=[0, 1]", variants)), quiet=True)
    assert set(tried) == {
        *(TEACHER, stage1(0), stage1(0, "wide"), stage2(0), stage2(0, "wide")),
        *(baseline(0, method) for method in ("scratch", "kd", "crd", "crd_kd")),
    }
    assert len(tried) == len(set(tried))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("crd.temperature=0.2", True),
        ("crd.lambda_penultimate=0.7", True),
        ("crd.lambda_penultimate=0", False),
        ("crd.num_negatives=32", False),
        ("kd.train=head", True),  # of another job
        ("data.mix=mixup", False),
        ("teacher.views=2", False),
        ("precision=bfloat16", False),
    ],
)
def test_alike_is_what_costs_the_same(make_experiment, change, same):
    first, second = make_experiment(), make_experiment(change)
    assert (alike(first.config, stage1(0)) == alike(second.config, stage1(1))) is same


def test_a_kind_that_there_was_no_time_for_takes_its_like(make_experiment, monkeypatch, tried):
    clock = iter([0.0, *[100.0] * 50])  # the first look is the last before all time is over
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: next(clock))
    lines = estimate(tasks_of(make_experiment()), quiet=True, seconds=1.0)
    assert [name.kind for name in tried] == ["teacher", "stage1", "stage2", "baseline"]
    assert lines[-1].note == "as scratch seed 0, not tried itself" and lines[-1].seconds > 0


def test_smaller_batches_are_told(make_experiment, monkeypatch):
    monkeypatch.setattr(estimates, "rehearse", lambda *_: replace(TRIED, batch=4))
    assert estimate(tasks_of(make_experiment()), quiet=True)[0].note == "from 4 images a step, not 16"


def test_the_teachers_views_that_are_missing_come_first(make_experiment, tried, tmp_path):
    experiment = make_experiment("teacher.views=3", f"data.cache_dir={tmp_path / 'cache'}")
    first = estimate(tasks_of(experiment), quiet=True)[0]
    width = 4 + 32 + 64  # classes and the channels of two taps
    assert (first.what, first.images, first.epochs) == ("teacher's outputs, once", 64, 3)
    assert first.disk == 3 * 64 * width * 2 and first.seconds > 0
    assert not list((tmp_path / "cache").glob("teacher-*"))
    train_teacher(experiment)
    network = experiment.trained(experiment.config.teacher, experiment.folder.teacher)
    one_view = make_experiment("teacher.views=1", f"data.cache_dir={tmp_path / 'cache'}")
    teacher_outputs(one_view, experiment.tapped(network, experiment.config.teacher))
    rest = estimate(tasks_of(experiment, kept=[TEACHER]), quiet=True)[0]
    assert (rest.epochs, rest.disk) == (2, 2 * 64 * width * 2)


def test_decoding_is_a_line_and_its_pixels_are_memory_of_every_job(make_experiment, tried):
    decoding = Decoding(images=1000, tried=8, seconds_an_image=0.01, bytes=768_000, more_memory=760_000)
    first, teacher, *_ = estimate(tasks_of(make_experiment()), quiet=True, decoding=decoding)
    assert (first.what, first.seconds, first.disk) == ("decoding, once", 10.0, 768_000)
    assert teacher.memory == 3_000 + 760_000


def test_totals_add_time_and_disk_and_take_the_most_memory():
    lines = [
        Estimate("a", 10, 2, seconds=3.0, memory=5, disk=10, working=7),
        Estimate("b", 10, 2, seconds=4.0, memory=2, disk=20, working=9, count=3),
    ]
    found = total(lines)
    assert (found.seconds, found.memory, found.disk, found.working) == (15.0, 5, 70, 9)
    head, one, other, last = table(lines).splitlines()
    assert head.split()[:2] == ["job", "jobs"] and last.startswith("total")
    assert one.index("10 x 2") == other.index("10 x 2")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (1.94, "1.9 s"), (119, "119 s"), (125, "2 min"), (7200, "2.0 h"), (180000, "2.1 days")],
)
def test_durations_are_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, ""), (999, "0.999 kB"), (1_500_000, "1.5 MB"), (999_900_000, "1 GB"), (5e12, "5,000 GB")],
)
def test_sizes_have_three_digits(number, text):
    assert size(number) == text


def test_a_dry_run_of_undecoded_images_leaves_the_disk_as_it_was(call_main, tmp_path):
    cache = tmp_path / "cache"
    settings = ("--set", f"data.cache_dir={cache}", "baselines.methods=[]", "crd.epochs=3")
    done = call_main(tmp_path, "--phase", "all", "--dry-run", *settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "96 x 1" in lines["decoding, once"] and "64 x 3" in lines["stage1 seed 0"] and "total" in lines
    assert done.stdout.endswith("dry run: nothing was trained, no run folder was written\n")


def test_a_wrong_config_is_one_line_of_a_dry_run_too(call_main, tmp_path):
    done = call_main(tmp_path, "--phase", "all", "--dry-run", "--set", "crd.batch_size=65")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "crd.batch_size=65" in done.stderr
    assert list(tmp_path.iterdir()) == []
