"""Of study/run.py, and study/examples.py, study/plan.py, study/methods.py, study/measurements.py."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from dataset.prepare import prepare
from dataset.sources import load_source
from diagnostics.plain import to_plain
from errors import UserError
from models.checkpoint import load
from settings.loss_options import complete_losses
from settings.reading import load_config
from study import run as study
from study.examples import choose_examples
from study.figures import Examples
from study.grid import list_runs, read_shard
from study.measurements import Measurement, load_measurements
from study.methods import list_students
from study.results import conclude as analyse
from tests.study.small_study import SHORT, SMALL, STUDY
from training.run.run_folder import RunFolder

ROOT = Path(study.__file__).parents[1]


FIRST = "conflicting_0.1-teacher_biased-students_biased-seed0"


def call(call_main, runs, *arguments, settings=STUDY):
    return call_main(runs, "--phase", "study", *arguments, "--set", *settings)


@pytest.fixture(scope="module")
def whole_study(tiny_config, tmp_path_factory):
    """A study run to its end: its folder and how many jobs each run trained and copied."""
    runs, counts = tmp_path_factory.mktemp("study"), {}
    config = complete_losses(load_config(tiny_config, STUDY))

    def counted(opened, run):
        counts[run.name] = do_run(opened, run)
        return counts[run.name]

    do_run, study.do_run = study.do_run, counted
    try:
        machine = study.Machine(torch.device("cpu"), bfloat16=False, quiet=True)
        study.study_phase(config, runs, machine, None, dry_run=False)
    finally:
        study.do_run = do_run
    return runs / "s", counts


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("{shortcut.conflictin: [0.1]}", "unknown key shortcut.conflictin, did you mean 'shortcut.conflicting'"),
        ("{trainin.optimizer.lr: [0.1]}", "unknown key trainin, did you mean 'training'"),
        ("{data.crop.x: [0.1]}", "study.grid: data.crop.x: crop is a value, not a section"),
        ("{kd.alpha: [0.1]}", "study.grid: kd.alpha: kd.alpha is now the weights"),
        ("{training.epochs: [2, 0]}", "study.grid at epochs 0: training.epochs: Input should be greater"),
        ("{shortcut.seed: [1]}", "shortcut.seed cannot be varied"),
        ("{methods.kdd.stage1.epochs: [1]}", "there is no method kdd, did you mean 'kd'"),
        (
            "{methods.kd.stage1.epoch: [1]}",
            "unknown key methods.kd.stage1.epoch, did you mean 'methods.kd.stage1.epochs'",
        ),
        ("{methods.kd.stage1.losses.kll.weight: [1]}", "losses: there is no kll, did you mean 'kl'"),
        ("{methods.kd.losses.kl.temp: [1]}", "study.grid at temp 1: unknown key methods.kd.stage1.losses.kl.temp"),
        ("{losses.crd.temperatur: [1]}", "did you mean 'losses.crd.temperature'"),
        (
            "{losses.crd.temperature: [1, -1]}",
            "study.grid at temperature -1: losses.crd.temperature: Input should be",
        ),
        (
            "{losses.regression.ridge: [0.1, 1]}",
            "ridge 0.1 and ridge 1 train the same: no method has what differs",
        ),
    ],
)
def test_a_grid_that_does_not_fit_is_named(call_main, tmp_path, grid, words):
    done = call(call_main, tmp_path, settings=("name=s", f"study.grid=[{grid}]"))
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_bad_shard_is_one_line(call_main, tmp_path, text):
    with pytest.raises(UserError, match="--shard"):
        read_shard(text)
    if text and not text.startswith("-"):
        done = call(call_main, tmp_path, "--shard", text)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and list(tmp_path.iterdir()) == []


def test_shards_and_fresh_belong_to_their_phases(call_main, tmp_path):
    assert "--phase study" in call_main(tmp_path, "--phase", "all", "--shard", "1/2").stderr
    assert "remove its folder" in call(call_main, tmp_path, "--fresh").stderr
    strange = call(call_main, tmp_path, settings=(*STUDY, "study.hypotheses.H2.second=magic"))
    assert (
        strange.returncode == 2
        and "study.hypotheses.H2: magic is none of scratch, crd_kd, two_stage, head" in strange.stderr
    )
    again = "study.hypotheses.H3={measure: following, first: two_stage, second: crd_kd, where: "
    twice = call(call_main, tmp_path, settings=(*STUDY, again + "{shortcut.teacher: biased}}"))
    assert twice.returncode == 2 and "study.hypotheses.H3 claims what H1 does" in twice.stderr
    nowhere = call(call_main, tmp_path, settings=(*STUDY, "study.hypotheses.H1.where={training.epochs: 1}"))
    assert nowhere.returncode == 2 and "study.hypotheses.H1.where" in nowhere.stderr
    typo = call(call_main, tmp_path, settings=(*STUDY, "study.hypotheses.H1.measure=folowing"))
    assert typo.returncode == 2 and "H1.measure: there is no folowing, did you mean 'following'?" in typo.stderr
    stated = "study.hypotheses={H1: {measure: following, first: crd_kd, second: two_stage}}"
    absent = call(call_main, tmp_path, settings=(*SMALL, "shortcut.cue=none", stated))
    assert absent.returncode == 2 and "H1.measure: following is not measured at the only point, " in absent.stderr
    assert "compare one of top1, clean, held_out_top1" in absent.stderr
    twin = call(call_main, tmp_path, settings=(*STUDY, "study.twins={two_stage: crd}"))
    assert twin.returncode == 2 and "study.twins: crd is none of scratch, crd_kd" in twin.stderr
    told = call(call_main, tmp_path, settings=(*STUDY, "study.tries={rate: [head, crd]}"))
    assert told.returncode == 2 and "study.tries.rate: crd is none of scratch, crd_kd" in told.stderr
    told = call(call_main, tmp_path, settings=(*STUDY, "methods.head.stage2.images=balanced"))
    assert told.returncode == 2 and "study.tries.trained: head trains on the held-out images" in told.stderr
    told = call(call_main, tmp_path, settings=(*STUDY, "data.val_fraction=0"))
    assert told.returncode == 2 and "study.tries.trained: choosing needs held-out images" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_study_trains_each_thing_once_and_records_it(whole_study):
    folder, counts = whole_study
    assert len(counts) == 8 and sum((Counter(one) for one in counts.values()), Counter()) == {
        # 3 teachers and 3 scratch, 7 pairs of arms of the other four jobs
        "trained": 3 + 3 + 7 * 4,
        "copied": 8 * 6 - 34,
    }
    fair = [f"conflicting_{share}-teacher_unbiased-students_unbiased-seed0" for share in ("0.1", "0.3")]
    assert counts[fair[1]] == {"copied": 6}
    for job in ("teacher", "seed0/head/stage2"):
        first, second = (folder / name / job / "model.pt" for name in fair)
        assert first.read_bytes() == second.read_bytes()
    assert not list(folder.rglob("*.partial"))
    assert load_config(folder / FIRST / "config.yaml").shortcut.conflicting == 0.1
    names = {path.name for path in (folder / FIRST / "seed0").iterdir()}
    assert names == {"scratch", "crd_kd", "two_stage", "head", "cues.npz", "cues.json"}
    stages = [path.relative_to(folder / FIRST / "seed0") for path in (folder / FIRST / "seed0").glob("*/stage*")]
    assert sorted(map(str, stages)) == ["head/stage2", "two_stage/stage1", "two_stage/stage2"]


def test_a_copied_job_is_what_training_it_would_give(whole_study, call_main, tmp_path):
    name = "conflicting_0.3-teacher_biased-students_biased-seed0"
    config = whole_study[0] / name / "config.yaml"
    done = call_main(tmp_path, "--config", str(config), "--phase", "all", "--quiet")
    assert done.returncode == 0, done.stderr
    for job in ("teacher", "seed0/scratch", "seed0/crd_kd", "seed0/two_stage/stage2", "seed0/head/stage2"):
        one, other = load(whole_study[0] / name / job / "model.pt"), load(tmp_path / name / job / "model.pt")
        assert all(torch.equal(one[key], other[key]) for key in one), job


def test_records_hold_what_the_study_needs(whole_study):
    records, context = load_measurements(whole_study[0])
    assert len(records) == 8 * 5 and all(isinstance(record, Measurement) for record in records)
    assert {record.method for record in records} == {"teacher", "scratch", "crd_kd", "two_stage", "head"}
    assert (len(context.recorded), len(context.points), context.seeds) == (8, 8, [0])
    assert context.hypotheses["H1"].where == {"shortcut.teacher": "biased"}
    assert context.end_to_end == {"scratch", "crd_kd"} and context.twins == {}
    for record in records:
        kl, top1, unbiased = (record.numbers[f"held_out_{name}"] for name in ("kl", "top1", "unbiased"))
        assert (kl == 0) == (record.method == "teacher") and 0 <= top1 <= 1 and 0 <= unbiased <= 1
    assert context.tries == {"trained": ["two_stage", "head"]}
    first = {record.method: record for record in records if record.point == context.points[0]}
    assert first["teacher"].numbers["cue_read"] > 0.5 and first["crd_kd"].kl == first["teacher"].kl == ()
    assert all(record.teacher_arm == record.point["shortcut.teacher"] for record in records)
    assert len(first["head"].kl) == 1 and first["head"].measures.fidelity_aligned is not None
    assert first["two_stage"].per_image_following.shape == (32,)
    results = analyse(records, context.hypotheses, context.tries)
    assert {row.blind.method for row in results.selection} <= {"two_stage", "head"} and len(results.selection) == 8
    assert len(results.hypotheses) == 2 * 4 and len(results.inheritance) == 4 * 4
    json.dumps(to_plain(results))


def test_examples_are_of_the_stated_point_and_fool_teacher_and_student(whole_study):
    _, context = load_measurements(whole_study[0])
    shown = choose_examples(context)
    assert isinstance(shown, Examples) and list(shown.answers) == ["teacher", "crd_kd", "two_stage"]
    assert shown.place == "conflicting 0.1, teacher biased, students biased, seed 0"
    assert len(shown.labels) <= 8 and shown.pixels.shape == (len(shown.labels), 3, 16, 16)
    for name in ("teacher", "two_stage"):  # of however few there are on this machine
        assert all(answer != label for answer, label in zip(shown.answers[name], shown.labels, strict=True))


def test_a_study_goes_on_where_it_was_stopped(whole_study, call_main, run_main, tmp_path):
    shutil.copytree(whole_study[0], tmp_path / "s")
    done = call(call_main, tmp_path)
    assert done.returncode == 0 and "8 runs, 8 finished before" in done.stdout
    assert done.stdout.splitlines()[-1] == f"next: python main_eval.py {tmp_path / 's'}"
    job = tmp_path / "s" / FIRST / "seed0" / "two_stage" / "stage2"
    before = load(job / "model.pt")
    (job / "result.json").unlink()
    (tmp_path / "s" / FIRST / "seed0" / "two_stage" / ".stage2.partial").mkdir()  # of an interrupted copy
    done = call(call_main, tmp_path, "--shard", "1/1")
    assert "8 runs, 7 finished before" in done.stdout and "1 jobs trained, 0 copied" in done.stdout
    after = load(job / "model.pt")
    assert all(torch.equal(before[key], after[key]) for key in before)
    shutil.rmtree(tmp_path / "s" / "conflicting_0.3-teacher_unbiased-students_unbiased-seed0")
    assert "0 jobs trained, 6 copied" in call(run_main, tmp_path).stdout  # as a process of its own
    (tmp_path / "s" / FIRST / "seed0" / "cues.json").unlink()
    assert call(call_main, tmp_path, "--quiet").stdout.count("\n") == 2
    assert len(load_measurements(tmp_path / "s")[1].recorded) == 8


def test_another_study_in_the_folder_is_refused(whole_study, call_main, tmp_path):
    shutil.copytree(whole_study[0], tmp_path / "s")
    done = call(call_main, tmp_path, settings=(*STUDY, "study.hypotheses.H1.margin=0.5"))
    assert done.returncode == 2 and "other values of study.hypotheses" in done.stderr
    planned = call(call_main, tmp_path, "--dry-run", settings=(*STUDY, "study.hypotheses.H1.margin=0.5"))
    assert (planned.returncode, planned.stderr) == (2, done.stderr)
    (tmp_path / "s" / "config.yaml").unlink()
    assert "holds files but no config.yaml" in call(call_main, tmp_path).stderr
    with pytest.raises(UserError, match="is no study"):
        load_measurements(tmp_path / "s")


def test_a_dry_run_says_what_would_be_done(call_main, tmp_path):
    done = call(call_main, tmp_path, "--dry-run", "--seeds", "0", "1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "in all: 16 runs, 0 of them recorded; jobs: 68 to train, 28 to copy, 0 finished" in lines
    assert any(line.startswith(f"{FIRST.removesuffix('-seed0')}: 2 runs") for line in lines)
    assert any(
        line.startswith("hypothesis H1, at shortcut.teacher = biased: following of crd_kd") for line in lines
    )
    assert f"contact sheet: {tmp_path / 's-cues.png'}" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["s-cues.png"]


def test_a_study_needs_no_cue_and_a_failed_run_stops_no_other(call_main, tmp_path, monkeypatch):
    plain = ("name=p", *SHORT, "methods=[kd, two_stage]")
    grid = "study.grid=[{losses.crd.objective: [nce, infonce]}]"

    def failing(opened, run):
        if run.config.losses["crd"]["objective"] == "nce":
            raise UserError("loss became nan")
        return do_run(opened, run)

    do_run = study.do_run
    monkeypatch.setattr(study, "do_run", failing)
    done = call(call_main, tmp_path, settings=(*plain, grid))
    assert done.returncode == 2 and "1 runs failed, the first nce-seed0" in done.stderr
    monkeypatch.undo()
    records, context = load_measurements(tmp_path / "p")
    assert [record.method for record in records] == ["teacher", "kd", "two_stage"]
    assert context.hypotheses == {}
    assert all(record.measures is None and 0 <= record.numbers["top1"] <= 1 for record in records)


def test_a_study_gains_methods_and_takes_a_given_teacher(call_main, tmp_path):
    done = call(call_main, tmp_path, settings=("name=s", *SHORT, "methods=[scratch]"))
    more = call(call_main, tmp_path, settings=("name=s", *SHORT, "methods=[scratch, kd]"))
    assert "2 jobs trained" in done.stdout and "1 jobs trained" in more.stdout
    assert list(RunFolder(tmp_path / "s" / "seed0").config().methods) == ["scratch", "kd"]
    assert [record.method for record in load_measurements(tmp_path / "s")[0]] == ["teacher", "scratch", "kd"]
    alone = "methods.aligned=[{train: features, losses: {crd: 1}}]"  # which has no classifier to compare
    given = f"teacher.checkpoint={tmp_path / 's' / 'seed0' / 'teacher' / 'model.pt'}"
    for trained in ("0 finished before", "1 finished before"):
        done = call(call_main, tmp_path, settings=("name=g", *SHORT, "methods=[scratch]", alone, given))
        assert done.returncode == 0 and trained in done.stdout
    assert [record.method for record in load_measurements(tmp_path / "g")[0]] == ["teacher", "scratch"]


@pytest.mark.parametrize(
    ("name", "runs", "stated"),
    [
        ("digits", 10, {"H1", "H2", "H3", "H4_kd", "H4_twin"}),
        ("digits_tint", 10, {"H4_kd", "H4_twin"}),
        ("digits_tries", 6, set()),
        ("digits_heads", 240, {"H1"}),
        ("methods", 20, {"H1"}),
        ("cifar100_folder", 3, {"H1", "H2", "H3"}),
    ],
)
def test_shipped_studies_are_valid(name, runs, stated):
    config = load_config(ROOT / "configs" / "shortcut" / f"{name}.yaml")
    assert len(list_runs(config)) == runs and config.study.hypotheses.keys() == stated
    methods = list_students(config, 0).keys()
    assert all({one.first, one.second} <= methods for one in config.study.hypotheses.values())
    twins, tries = config.study.twins, config.study.tries
    assert {*twins, *twins.values(), *(name for family in tries.values() for name in family)} <= methods
    assert len({len(family) for family in tries.values()}) <= 1  # as many for each


def test_no_seed_of_the_digits_study_was_chosen_on():
    asked, tint, tries = (
        load_config(ROOT / "configs" / "shortcut" / f"{name}.yaml").seeds
        for name in ("digits", "digits_tint", "digits_tries")
    )
    assert asked == tint and not set(asked) & set(tries)


def test_the_digits_are_split_as_the_study_says():
    config = load_config(ROOT / "configs" / "shortcut" / "digits.yaml")
    data = prepare(load_source(config.data), config.data, torch.device("cpu"), config.shortcut)
    assert (len(data.train), len(data.balanced), len(data.test)) == (1000, 300, 497)
    assert (
        config.teacher.cached_views
        == config.training.epochs
        == sum(one.epochs for one in config.stages["two_stage"])
    )
