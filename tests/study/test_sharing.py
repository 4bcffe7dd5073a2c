from __future__ import annotations

import os
import subprocess
from pathlib import Path

from configs.reading import load_config
from study.sharing import fingerprint
from tests.study.small_study import STUDY
from training.job_name import TEACHER, read_label

ROOT = Path(__file__).parents[2]


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
    assert changed_by("kd.alpha=0.3") == {"crd_kd", "stage2", "stage2_other", "stage2_again"}
    for own in ("patience=3", "watch=val_loss", "optimizer.ema=0.9"):
        assert key("scratch") != key("scratch", f"baselines.{own}")
    own = ("baselines.alpha=0.9", "baselines.temperature=4")
    assert changed_by(*own) == set()
    assert changed_by(*own, "kd.alpha=0.3") == {"stage2", "stage2_other", "stage2_again"}
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
    assert changed_by("shortcut.pairs=counterfactual") == set(jobs) - {"teacher", *teacher_free, "stage2_llr"}
    assert changed_by("name=other", "data.cache_dir=elsewhere", "study.grid=[]") == set()
    fair = ("shortcut.teacher=unbiased", "shortcut.students=unbiased")
    assert all(key(job, *fair) == key(job, *fair, "shortcut.conflicting=0.3") for job in jobs)


def test_a_weighted_job_depends_on_whose_errors_it_is_weighted_by(tiny_config):
    kinds = (("a", "{}"), ("same", "{}"), ("short", "{epochs: 1}"))
    named = (f"{name}: {{method: scratch, baselines: {differs}}}" for name, differs in kinds)
    ways = "baselines.variants={" + ", ".join(named) + "}"
    form = ("crd.objective=regression", "baselines.methods=[crd_kd]", ways)
    unweighted = [f"baselines.variants.{name}.baselines.errors_of=null" for name, _ in kinds]

    def key(job, *overrides):
        return fingerprint(load_config(tiny_config, [*form, *unweighted, *overrides]), read_label(job, 0))

    for job, section in (("stage1", "crd"), ("stage2", "kd"), ("crd_kd", "baselines")):
        plain, chosen = key(job), f"{section}.errors_of="
        weighted = key(job, chosen + "a")
        assert weighted not in (plain, key(job, chosen + "short"))
        assert weighted == key(job, chosen + "same")  # another name of the same training
        assert weighted != key(job, chosen + "a", f"{section}.error_weight=5")


def test_mixing_changes_every_student_and_not_the_teacher(tiny_config):
    def key(job, *overrides):
        name = TEACHER if job == "teacher" else read_label(job, 0)
        return fingerprint(load_config(tiny_config, overrides), name)

    for job in ("scratch", "crd_kd", "stage1", "stage2"):
        kinds = {key(job, f"data.mix={mix}") for mix in ("none", "mixup", "erasing")}
        assert len({*kinds, key(job, "data.mix=mixup", "data.mix_strength=0.4")}) == 4
        assert key(job, "data.mix=mixup", "data.mix_strength=0.2") == key(job, "data.mix=mixup")
        assert key(job, "data.mix_strength=0.4") == key(job)
    assert key("teacher", "data.mix=mixup") == key("teacher")


def test_the_script_for_slurm_is_one_shard_of_the_array(tmp_path):
    script = ROOT / "docs" / "study_array.sh"
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')  # says what it was given
    (tmp_path / "python").chmod(0o755)
    task = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "8"}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **task}
    done = subprocess.run(
        ["bash", str(script), "a.yaml", "--quiet"], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "main.py --phase study --config a.yaml --shard 2/8 --quiet\n", done.stderr
