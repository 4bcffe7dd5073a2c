from __future__ import annotations

import os
import subprocess
from pathlib import Path

from settings.reading import load_config
from study.sharing import fingerprint
from tests.study.small_study import STUDY
from training.job_name import TEACHER, jobs_of_method

ROOT = Path(__file__).parents[2]
METHODS = (
    "methods={llr: [{starts_from: teacher, train: head, images: balanced, losses: {ce: 1}}], "
    "again: {base: two_stage, stage2: {train: head, teacher: llr}}, "
    "other: {base: two_stage, stage1: {losses: {crd: {mode: instance}}}}, "
    "random: [{train: head, losses: {ce: 1}}]}",
)


def job_named(config, label):
    """The job of a label such as two_stage/stage2, or that of another method with the same stages."""
    if label == "teacher":
        return TEACHER
    method, _, stage = label.partition("/stage")
    return jobs_of_method(config, method, config.seeds[0])[int(stage or 1) - 1]


def key_of(path, label, *overrides):
    config = load_config(path, overrides)
    return fingerprint(config, job_named(config, label))


def test_jobs_are_the_same_only_if_all_they_depend_on_is(tiny_config):
    def key(job, *overrides):
        return key_of(tiny_config, job, *STUDY, *METHODS, *overrides)

    second = {"two_stage/stage2", "other/stage2", "again/stage2"}
    jobs = {"teacher", "scratch", "crd_kd", "two_stage/stage1", "other/stage1", *second, "llr", "random"}

    def changed_by(*overrides):
        return {job for job in jobs if key(job) != key(job, *overrides)}

    teacher_free = {"scratch", "random"}
    assert changed_by("shortcut.teacher=unbiased") == jobs - teacher_free
    assert changed_by("shortcut.students=unbiased") == jobs - {"teacher", "llr"}
    assert changed_by("shortcut.teacher=unbiased", "shortcut.conflicting=uniform") == jobs
    assert changed_by("methods.two_stage.stage2.losses={kl: 0.3, ce: 0.7}") == second
    for own in ("selection_epochs=1", "batch_size=8", "optimizer.ema=0.9"):
        assert key("scratch") != key("scratch", f"training.{own}")
    said = ("methods.crd_kd.losses.kl={weight: 0.9, temperature: 4}", "methods.crd_kd.train=all")
    assert changed_by(*said) == changed_by("losses.kl.temperature=4") == set()
    assert changed_by(*said, "losses.kl.temperature=2") == second
    assert changed_by("losses.crd.temperature=0.3") == {"crd_kd", "two_stage/stage1", "other/stage1", *second}
    assert changed_by("methods.crd_kd.losses.kl=0.3") == {"crd_kd"}
    assert changed_by("methods.two_stage.stage1.epochs=3", "training.epochs=4") >= {"two_stage/stage1", *second}
    assert changed_by("seeds=[4]") == jobs - {"teacher"}
    assert changed_by("teacher.seed=4") == jobs - teacher_free
    assert changed_by("data.seed=4") == changed_by("shortcut.seed=4") == changed_by("precision=bfloat16") == jobs
    assert changed_by("teacher.cached_views=2") == jobs - {"teacher"}
    assert changed_by("student.arch=resnet14") == jobs - {"teacher", "llr"}
    assert changed_by("shortcut.pairs=counterfactual") == jobs - {"teacher", *teacher_free, "llr"}
    assert (
        changed_by("name=other", "data.cache_dir=elsewhere", "study.grid=[]", "student.allow_untrained=true")
        == set()
    )
    fair = ("shortcut.teacher=unbiased", "shortcut.students=unbiased")
    assert all(key(job, *fair) == key(job, *fair, "shortcut.conflicting=0.3") for job in jobs)


def test_methods_are_the_same_by_what_they_train_and_not_by_name(tiny_config):
    def key(method, *stages):
        return key_of(tiny_config, method, f"methods={{mine: [{', '.join(stages)}]}}")

    aligned, head = "{train: features, losses: {crd: 1}, epochs: 2}", "{train: head, losses: {ce: 1, kl: 1}}"
    assert key("mine", aligned) == key("mine/stage1", aligned, head)  # alone, or before another
    assert key("mine/stage2", aligned, head) != key("mine", head)
    assert key("mine", head) != key("mine", "{train: head, losses: {ce: 1, kl: 1}, starts_from: teacher}")
    assert key("mine", head) != key("mine", "{train: head, losses: {kl: 1, ce: 1}}")  # summed in another order
    assert key("mine", head) != key("mine", "{train: head, losses: {ce: 1, kl: 1}, reset_head: true}")
    whole = "{losses: {ce: 0.1, kl: 0.9}}"
    assert key("kd", whole) == key("mine", whole)


def test_a_loss_of_ones_own_counts_with_its_code(tiny_config, tmp_path, monkeypatch):
    code = tmp_path / "loss_for_sharing.py"
    code.write_text("from losses.ce import CE\n\nclass Mine(CE):\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    mine = ("losses={mine: {class: 'loss_for_sharing:Mine'}}", "methods={own: [{losses: {mine: 1}}]}")

    def keys():
        return [key_of(tiny_config, label, *mine) for label in ("own", "scratch")]

    before = keys()
    code.write_text(f"{code.read_text(encoding='utf-8')}\n# changed\n", encoding="utf-8")
    after = keys()
    assert before[0] != after[0] and before[1] == after[1]


def test_a_weighted_job_depends_on_whose_errors_it_is_weighted_by(tiny_config):
    form = ("methods={a: {base: scratch}, same: {base: scratch, epochs: 4}, short: {base: scratch, epochs: 1}}",)

    for job in ("two_stage/stage1", "two_stage/stage2", "crd_kd"):
        chosen = f"methods.{job.replace('/', '.')}.upweight_errors_of="
        plain, weighted = key_of(tiny_config, job, *form), key_of(tiny_config, job, *form, chosen + "a")
        assert weighted not in (plain, key_of(tiny_config, job, *form, chosen + "short"))
        assert weighted == key_of(tiny_config, job, *form, chosen + "same")  # another name of the same training
        error_weight = f"methods.{job.replace('/', '.')}.error_weight=5"
        assert weighted != key_of(tiny_config, job, *form, chosen + "a", error_weight)


def test_mixing_changes_every_student_and_not_the_teacher(tiny_config):
    def key(job, *overrides):
        return key_of(tiny_config, job, *overrides)

    for job in ("scratch", "crd_kd", "two_stage/stage1", "two_stage/stage2"):
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
