from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.reading import load_config
from dataset.prepare import prepare
from dataset.sources import load_source
from diagnostics.plain import to_plain
from errors import UserError
from models.checkpoint import load
from study import plan as study_plan
from study import run as study
from study.grid import Shard, point_names, points_of, read_shard, runs_of
from study.measurements import Measurement, load_measurements
from study.results import conclude as analyse
from study.sharing import fingerprint
from training.job_name import TEACHER, read_label

ROOT = Path(study.__file__).parents[1]
GRID = (
    "study.grid=[{shortcut.conflicting: [0.1, 0.3], shortcut.teacher: [biased, unbiased], "
    "shortcut.students: [biased, unbiased]}]"
)
STATED = "study.hypothesis={first: crd_kd, second: two_stage, where: {shortcut.teacher: biased}}"
SHORT = ("teacher.epochs=1", "crd.epochs=1", "kd.epochs=1")
SMALL = ("name=s", "shortcut.cue=patch", "data.val_fraction=0.25", *SHORT)
STUDY = (*SMALL, "baselines.methods=[scratch, crd_kd]", "variants={head: {kd: {train: head}}}", GRID, STATED)
FIRST = "conflicting_0.1-teacher_biased-students_biased-seed0"


def call(call_main, runs, *arguments, settings=STUDY):
    return call_main(runs, "--phase", "study", *arguments, "--set", *settings)


@pytest.fixture(scope="module")
def whole_study(tiny_config, tmp_path_factory):
    """A study run to its end: its folder and how many jobs each run trained and copied."""
    runs, counts = tmp_path_factory.mktemp("study"), {}
    config = load_config(tiny_config, STUDY)

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


def test_a_grid_is_a_union_of_products_without_repetition():
    grid = [{"b.x": [1, 2], "a.y": ["p", "q"]}, {"b.x": [2], "a.y": ["q"]}, {"a.y": ["r"]}]
    points = points_of(grid)
    assert len(points) == 5 and {"a.y": "r"} in points and points.count({"b.x": 2, "a.y": "q"}) == 1
    assert list(points[0]) == ["b.x", "a.y"]
    assert points_of([]) == [{}]
    with pytest.raises(UserError, match="a.y has no values"):
        points_of([{"a.y": []}])


def test_names_say_a_word_alone_only_where_it_tells():
    grid = [
        {
            "shortcut.cue": ["patch"],
            "kd.alpha": [0.5],
            "shortcut.teacher": ["biased"],
            "shortcut.students": ["biased"],
        }
    ]
    assert point_names(points_of(grid)) == ["patch-alpha_0.5-teacher_biased-students_biased"]
    both = points_of([{"student.arch": ["resnet8"], "teacher.arch": ["resnet8", "a/b: c"]}])
    assert point_names(both) == ["student.arch_resnet8-teacher.arch_resnet8", "student.arch_resnet8-a_b_c"]
    alike = point_names([{"kd.head": "a b"}, {"kd.head": "a/b"}])
    assert len(set(alike)) == 2 and all(set(name) <= set("ab_-01") for name in alike)


def test_each_run_has_its_seed_and_its_point(tiny_config):
    config = load_config(tiny_config, [*STUDY, "seeds=[3, 5]"])
    runs = runs_of(config)
    assert len(runs) == len({run.name for run in runs}) == 16
    run = runs[1]
    assert run.name == "conflicting_0.1-teacher_biased-students_biased-seed5" and run.config.seeds == [5]
    assert (run.config.teacher.seed, run.config.shortcut.seed, run.config.study.grid) == (5, 5, [])
    assert [run.config.shortcut.conflicting for run in runs] == [0.1] * 8 + [0.3] * 8
    assert [run.name for run in runs_of(load_config(tiny_config, ["study.grid=[]"]))] == ["seed0"]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("{shortcut.conflictin: [0.1]}", "unknown key shortcut.conflictin, did you mean 'shortcut.conflicting'"),
        ("{kd.alpha.x: [0.1]}", "unknown key kd.alpha.x"),
        ("{kd.alpha: [0.1, 7]}", "kd.alpha"),
        ("{shortcut.seed: [1]}", "shortcut.seed cannot be varied"),
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
    strange = call(call_main, tmp_path, settings=(*STUDY, "study.hypothesis.second=magic"))
    assert strange.returncode == 2 and "magic is none of scratch, crd_kd, two_stage, head" in strange.stderr
    nowhere = call(call_main, tmp_path, settings=(*STUDY, "study.hypothesis.where={kd.alpha: 1}"))
    assert nowhere.returncode == 2 and "study.hypothesis.where" in nowhere.stderr
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.integers(0, 6), max_size=30), st.integers(1, 9))
def test_shards_cover_everything_once_and_keep_groups_together(groups, count):
    runs = list(enumerate(groups))
    parts = [Shard(number, count).take(runs, lambda run: run[1]) for number in range(1, count + 1)]
    assert sorted(run for part in parts for run in part) == runs
    assert all(len({number for number, part in enumerate(parts) if run in part}) == 1 for run in runs)
    homes = [{run[1] for run in part} for part in parts]
    assert sum(map(len, homes)) == len(set(groups))
    assert max(map(len, homes)) - min(map(len, homes)) <= 1


def test_jobs_are_the_same_only_if_all_they_depend_on_is(tiny_config):
    def key(job, *overrides):
        name = TEACHER if job == "teacher" else read_label(job, 0)
        return fingerprint(load_config(tiny_config, [*STUDY, *VARIANTS, *overrides]), name)

    VARIANTS = (
        "variants={llr: {kd: {train: head, features: teacher, images: balanced, alpha: 0}}, "
        "again: {kd: {train: head, teacher_head: llr}}, other: {crd: {mode: instance}}, "
        "random: {kd: {train: head, features: random, alpha: 0}}}",
    )
    jobs = ("teacher", "scratch", "crd_kd", "stage1", "stage1_other", "stage2", "stage2_other", "stage2_llr")
    jobs += ("stage2_again", "stage2_random")

    def changed_by(*overrides):
        return {job for job in jobs if key(job) != key(job, *overrides)}

    teacher_free = {"scratch", "stage2_random"}
    assert changed_by("shortcut.teacher=unbiased") == set(jobs) - teacher_free
    assert changed_by("shortcut.students=unbiased") == set(jobs) - {"teacher", "stage2_llr"}
    assert changed_by("shortcut.teacher=unbiased", "shortcut.conflicting=uniform") == set(jobs)
    assert changed_by("kd.alpha=0.3") == {"stage2", "stage2_other", "stage2_again"}
    assert changed_by("crd.temperature=0.3") == {
        "crd_kd",
        "stage1",
        "stage1_other",
        "stage2",
        "stage2_other",
        "stage2_again",
    }
    assert changed_by("baselines.alpha=0.3") == {"crd_kd"}
    assert changed_by("seeds=[4]") == set(jobs) - {"teacher"}
    assert changed_by("teacher.seed=4") == set(jobs) - teacher_free
    assert changed_by("data.seed=4") == changed_by("shortcut.seed=4") == set(jobs)
    assert changed_by("name=other", "data.cache_dir=elsewhere", "study.grid=[]") == set()
    fair = ("shortcut.teacher=unbiased", "shortcut.students=unbiased")
    assert all(key(job, *fair) == key(job, *fair, "shortcut.conflicting=0.3") for job in jobs)


def test_a_study_trains_each_thing_once_and_records_it(whole_study):
    folder, counts = whole_study
    assert len(counts) == 8 and sum((Counter(one) for one in counts.values()), Counter()) == {
        # 3 teachers and 3 scratch, 7 pairs of arms of the other four jobs
        "trained": 3 + 3 + 7 * 4,
        "copied": 8 * 6 - 34,
    }
    fair = [f"conflicting_{share}-teacher_unbiased-students_unbiased-seed0" for share in ("0.1", "0.3")]
    assert counts[fair[1]] == {"copied": 6}
    for job in ("teacher", "seed0/stage2_head"):
        first, second = (folder / name / job / "model.pt" for name in fair)
        assert first.read_bytes() == second.read_bytes()
    assert not list(folder.rglob("*.partial"))
    assert load_config(folder / FIRST / "config.yaml").shortcut.conflicting == 0.1
    names = {path.name for path in (folder / FIRST / "seed0").iterdir()}
    assert names == {"scratch", "crd_kd", "stage1", "stage2", "stage2_head", "cues.npz", "cues.json"}


def test_a_copied_job_is_what_training_it_would_give(whole_study, call_main, tmp_path):
    name = "conflicting_0.3-teacher_biased-students_biased-seed0"
    config = whole_study[0] / name / "config.yaml"
    done = call_main(tmp_path, "--config", str(config), "--phase", "all", "--quiet")
    assert done.returncode == 0, done.stderr
    for job in ("teacher", "seed0/scratch", "seed0/crd_kd", "seed0/stage2", "seed0/stage2_head"):
        one, other = load(whole_study[0] / name / job / "model.pt"), load(tmp_path / name / job / "model.pt")
        assert all(torch.equal(one[key], other[key]) for key in one), job


def test_records_hold_what_the_study_needs(whole_study):
    records, context = load_measurements(whole_study[0])
    assert len(records) == 8 * 5 and all(isinstance(record, Measurement) for record in records)
    assert {record.method for record in records} == {"teacher", "scratch", "crd_kd", "two_stage", "head"}
    assert (len(context.recorded), len(context.points), context.seeds) == (8, 8, [0])
    assert context.hypothesis.where == {"shortcut.teacher": "biased"}
    first = {record.method: record for record in records if record.point == context.points[0]}
    assert first["teacher"].extra["cue_read"] > 0.5 and "kl" not in first["crd_kd"].extra
    assert len(first["head"].extra["kl"]) == 1 and first["head"].measures.fidelity_aligned is not None
    assert first["two_stage"].per_image_following.shape == (32,)
    results = analyse(records, context.hypothesis)
    assert len(results.hypothesis) == 4 and len(results.inheritance) == 4 * 4
    json.dumps(to_plain(results))


def test_a_study_goes_on_where_it_was_stopped(whole_study, call_main, tmp_path):
    shutil.copytree(whole_study[0], tmp_path / "s")
    done = call(call_main, tmp_path)
    assert done.returncode == 0 and "8 runs, 8 finished before" in done.stdout
    assert done.stdout.splitlines()[-1] == f"next: python main_eval.py {tmp_path / 's'}"
    job = tmp_path / "s" / FIRST / "seed0" / "stage2"
    before = load(job / "model.pt")
    (job / "result.json").unlink()
    (tmp_path / "s" / FIRST / "seed0" / ".stage2.partial").mkdir()  # of an interrupted copy
    done = call(call_main, tmp_path, "--shard", "1/1")
    assert "8 runs, 7 finished before" in done.stdout and "1 jobs trained, 0 copied" in done.stdout
    after = load(job / "model.pt")
    assert all(torch.equal(before[key], after[key]) for key in before)
    shutil.rmtree(tmp_path / "s" / "conflicting_0.3-teacher_unbiased-students_unbiased-seed0")
    assert "0 jobs trained, 6 copied" in call(call_main, tmp_path).stdout
    (tmp_path / "s" / FIRST / "seed0" / "cues.json").unlink()
    assert call(call_main, tmp_path, "--quiet").stdout.count("\n") == 2
    assert len(load_measurements(tmp_path / "s")[1].recorded) == 8


def test_another_study_in_the_folder_is_refused(whole_study, call_main, tmp_path):
    shutil.copytree(whole_study[0], tmp_path / "s")
    done = call(call_main, tmp_path, settings=(*STUDY, "study.hypothesis.margin=0.5"))
    assert done.returncode == 2 and "other values of study.hypothesis" in done.stderr
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
        line.startswith("primary hypothesis, at shortcut.teacher = biased: following of crd_kd") for line in lines
    )
    assert f"contact sheet: {tmp_path / 's-cues.png'}" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["s-cues.png"]


def test_a_study_needs_no_cue_and_a_failed_run_stops_no_other(call_main, tmp_path, monkeypatch):
    plain = ("name=p", *SHORT, "baselines.methods=[kd]")
    grid = "study.grid=[{crd.objective: [nce, infonce]}]"

    def failing(opened, run):
        if run.config.crd.objective == "nce":
            raise UserError("loss became nan")
        return do_run(opened, run)

    do_run = study.do_run
    monkeypatch.setattr(study, "do_run", failing)
    done = call(call_main, tmp_path, settings=(*plain, grid))
    assert done.returncode == 2 and "1 runs failed, the first nce-seed0" in done.stderr
    monkeypatch.undo()
    records, context = load_measurements(tmp_path / "p")
    assert [record.method for record in records] == ["teacher", "kd", "two_stage"]
    assert context.hypothesis is None
    assert all(record.measures is None and 0 <= record.extra["test_top1"] <= 1 for record in records)


@pytest.mark.parametrize("name", ["digits", "cifar100_folder"])
def test_shipped_studies_are_valid(name):
    config = load_config(ROOT / "configs" / "shortcut" / f"{name}.yaml")
    runs = runs_of(config)
    stated = config.study.hypothesis
    assert {stated.first, stated.second} <= study_plan.methods_of(config, 0).keys() and stated.margin == 0.02
    assert len(runs) == {"digits": 240, "cifar100_folder": 2}[name]


def test_the_digits_are_split_as_the_study_says():
    config = load_config(ROOT / "configs" / "shortcut" / "digits.yaml")
    data = prepare(load_source(config.data), config.data, torch.device("cpu"), config.shortcut)
    assert (len(data.train), len(data.balanced), len(data.test)) == (1000, 300, 497)
    assert config.teacher.views == config.baseline_epochs == config.crd.epochs + config.kd.epochs
