from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from settings.reading import load_config
from study.sharing import compute_fingerprint
from tests.study.small_study import STUDY
from training.job_name import TEACHER, list_method_jobs

ROOT = Path(__file__).parents[2]
METHODS = (
    "methods={llr: [{starts_from: teacher, train: head, images: balanced, losses: {ce: 1}}], "
    "again: {base: two_stage, stage2: {train: head, teacher: llr}}, "
    "other: {base: two_stage, stage1: {losses: {crd: {mode: instance}}}}, "
    "random: [{train: head, losses: {ce: 1}}]}",
)


def make_key(path, label, *overrides):
    """Return the fingerprint of a job such as two_stage/stage2, or that of another method with the same stages."""
    config = load_config(path, overrides)
    if label == "teacher":
        return compute_fingerprint(config, TEACHER)
    method, _, stage = label.partition("/stage")
    return compute_fingerprint(config, list_method_jobs(config, method, config.seeds[0])[int(stage or 1) - 1])


SECOND = {"two_stage/stage2", "other/stage2", "again/stage2"}
JOBS = {"teacher", "scratch", "crd_kd", "two_stage/stage1", "other/stage1", *SECOND, "llr", "random"}
TEACHER_FREE = {"scratch", "random"}
WRITTEN_OUT = ("methods.crd_kd.losses.kl={weight: 0.9, temperature: 4}", "methods.crd_kd.train=all")


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["shortcut.teacher=unbiased"], JOBS - TEACHER_FREE),
        (["shortcut.students=unbiased"], JOBS - {"teacher", "llr"}),
        (["shortcut.teacher=unbiased", "shortcut.conflicting=uniform"], JOBS),
        (["methods.two_stage.stage2.losses={kl: 0.3, ce: 0.7}"], SECOND),
        (["training.selection_epochs=1"], JOBS - {"teacher"}),
        (["training.batch_size=8"], JOBS - {"teacher"}),
        (["training.optimizer.ema=0.9"], JOBS - {"teacher"}),
        (WRITTEN_OUT, set()),
        (["losses.kl.temperature=4"], set()),
        ([*WRITTEN_OUT, "losses.kl.temperature=2"], SECOND),
        (["losses.crd.temperature=0.3"], {"crd_kd", "two_stage/stage1", "other/stage1", *SECOND}),
        (["methods.crd_kd.losses.kl=0.3"], {"crd_kd"}),
        (["seeds=[4]"], JOBS - {"teacher"}),
        (["teacher.seed=4"], JOBS - TEACHER_FREE),
        (["data.seed=4"], JOBS),
        (["shortcut.seed=4"], JOBS),
        (["precision=bfloat16"], JOBS),
        (["teacher.cached_views=2"], JOBS - {"teacher"}),
        (["student.arch=resnet14"], JOBS - {"teacher", "llr"}),
        (["shortcut.pairs=counterfactual"], JOBS - {"teacher", *TEACHER_FREE, "llr"}),
        (["name=other", "data.cache_dir=elsewhere", "study.grid=[]", "student.allow_untrained=true"], set()),
    ],
)
def test_fingerprints_cover_all_that_a_job_depends_on(tiny_config, overrides, changed) -> None:
    before, after = (*STUDY, *METHODS), (*STUDY, *METHODS, *overrides)
    found = {job for job in JOBS if make_key(tiny_config, job, *before) != make_key(tiny_config, job, *after)}
    assert found == changed


def test_unbiased_arms_do_not_depend_on_the_share(tiny_config) -> None:
    fair = (*STUDY, *METHODS, "shortcut.teacher=unbiased", "shortcut.students=unbiased")
    for job in JOBS:
        assert make_key(tiny_config, job, *fair) == make_key(tiny_config, job, *fair, "shortcut.conflicting=0.3")


ALIGNED, HEAD = "{train: features, losses: {crd: 1}, epochs: 2}", "{train: head, losses: {ce: 1, kl: 1}}"
WHOLE = "{losses: {ce: 0.1, kl: 0.9}}"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (("mine", ALIGNED), ("mine/stage1", ALIGNED, HEAD), True),  # alone, or before another
        (("kd", WHOLE), ("mine", WHOLE), True),
        (("mine", HEAD), ("mine/stage2", ALIGNED, HEAD), False),
        (("mine", HEAD), ("mine", HEAD.replace("}}", "}, starts_from: teacher}")), False),
        (
            ("mine", HEAD),
            ("mine", HEAD.replace("ce: 1, kl: 1", "kl: 1, ce: 1")),
            False,
        ),  # other order
        (("mine", HEAD), ("mine", HEAD.replace("}}", "}, reset_head: true}")), False),
    ],
)
def test_fingerprints_ignore_names_of_methods(tiny_config, one, other, is_same) -> None:
    keys = [
        make_key(tiny_config, label, f"methods={{mine: [{', '.join(stages)}]}}") for label, *stages in (one, other)
    ]
    assert (keys[0] == keys[1]) == is_same


def test_own_losses_count_with_their_code(tiny_config, tmp_path, monkeypatch) -> None:
    code = tmp_path / "loss_for_sharing.py"
    code.write_text("from losses.ce import CE\n\nclass Mine(CE):\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    mine = ("losses={mine: {class: 'loss_for_sharing:Mine'}}", "methods={own: [{losses: {mine: 1}}]}")

    labels = ("own", "scratch")
    before = [make_key(tiny_config, label, *mine) for label in labels]
    code.write_text(f"{code.read_text(encoding='utf-8')}\n# changed\n", encoding="utf-8")
    after = [make_key(tiny_config, label, *mine) for label in labels]
    assert before[0] != after[0] and before[1] == after[1]


@pytest.mark.parametrize("job", ["two_stage/stage1", "two_stage/stage2", "crd_kd"])
def test_weighted_jobs_depend_on_the_biased_model(tiny_config, job) -> None:
    form = "methods={a: {base: scratch}, same: {base: scratch, epochs: 4}, short: {base: scratch, epochs: 1}}"
    stage = f"methods.{job.replace('/', '.')}"
    plain = make_key(tiny_config, job, form)
    names = ("a", "same", "short")
    found = {name: make_key(tiny_config, job, form, f"{stage}.upweight_errors_of={name}") for name in names}
    heavier = make_key(tiny_config, job, form, f"{stage}.upweight_errors_of=a", f"{stage}.error_weight=5")
    assert found["a"] == found["same"]  # another name of the same training
    assert len({plain, found["a"], found["short"], heavier}) == 4


@pytest.mark.parametrize("job", ["scratch", "crd_kd", "two_stage/stage1", "two_stage/stage2", "teacher"])
def test_mixing_changes_students_alone(tiny_config, job) -> None:
    plain, mixed = make_key(tiny_config, job), make_key(tiny_config, job, "data.mix=mixup")
    if job == "teacher":
        assert plain == mixed
        return
    strong = make_key(tiny_config, job, "data.mix=mixup", "data.mix_strength=0.4")
    assert len({plain, mixed, strong, make_key(tiny_config, job, "data.mix=erasing")}) == 4
    assert make_key(tiny_config, job, "data.mix=mixup", "data.mix_strength=0.2") == mixed
    assert make_key(tiny_config, job, "data.mix_strength=0.4") == plain


def test_slurm_script_runs_one_shard(tmp_path) -> None:
    script = ROOT / "docs" / "study_array.sh"
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')  # says what it was given
    (tmp_path / "python").chmod(0o755)
    task = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "8"}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **task}
    done = subprocess.run(
        ["bash", str(script), "a.yaml", "--quiet"], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "main.py --phase study --config a.yaml --shard 2/8 --quiet\n", done.stderr
