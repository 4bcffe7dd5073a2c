"""Of main.py, and training/experiment.py, training/run/environment.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata

import pytest
import torch

from models.checkpoint import load
from models.whole import hash_file
from settings.loss_options import fill_losses
from settings.reading import list_fields, load_config
from tests.conftest import ROOT

METHODS = ("scratch", "kd", "crd", "crd_kd")
STAGES = ("two_stage/stage1", "two_stage/stage2")
JOBS = ("teacher", *(f"seed0/{name}" for name in (*METHODS, *STAGES)))


@pytest.fixture(scope="module")
def whole_run(run_main, tmp_path_factory):
    """One `--phase all` as a process of its own: where it was run and what it printed."""
    runs = tmp_path_factory.mktemp("all")
    return runs, run_main(runs, "--phase", "all")


@pytest.fixture
def run_copy(whole_run, tmp_path):
    shutil.copytree(whole_run[0] / "tiny", tmp_path / "tiny")
    return tmp_path


def list_files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def assert_same_weights(first, second, jobs=JOBS):
    for job in jobs:
        one, other = load(first / job / "model.pt"), load(second / job / "model.pt")
        assert all(torch.equal(one[name], other[name]) for name in one), job


def test_all_trains_and_writes_everything(whole_run, tiny_config) -> None:
    runs, done = whole_run
    folder = runs / "tiny"
    assert (done.returncode, done.stderr) == (0, "")
    for job in JOBS:
        names = {path.name for path in (folder / job).iterdir()}
        assert {"metrics.jsonl", "timing.jsonl", "model.pt", "result.json"} <= names, job
        assert any(name.startswith("events.") for name in names) and "checkpoint.pt" not in names, job
        result = json.loads((folder / job / "result.json").read_text())
        lines = [json.loads(line) for line in (folder / job / "metrics.jsonl").read_text().splitlines()]
        assert len(lines) == result["epochs"] == (4 if job.endswith(METHODS) else 2), job
        assert result["model_sha256"] == hash_file(folder / job / "model.pt")
        assert f"files in {folder / job}" in done.stdout
        if not job.endswith("stage1"):
            assert f"test top-1 {100 * result['test_top1']:.1f} %" in done.stdout
            assert result["test_top1"] == lines[-1]["test_top1"]
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:5]] == [
        *("data", "teacher", "student", "machine", "plan")
    ]
    top1 = [json.loads((folder / job / "result.json").read_text())["test_top1"] for job in JOBS[:2]]
    gap = 100 * (top1[1] - top1[0])  # of scratch and the teacher
    assert (f"teacher is {gap:.1f} points below scratch on test images" in done.stdout) is (round(gap, 1) > 0)
    assert done.stdout.splitlines()[-1] == f"next: python main_eval.py {folder}"
    assert load_config(folder / "config.yaml") == fill_losses(load_config(tiny_config))
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["processes"] == 1 and environment["packages"]["torch"] == metadata.version("torch")
    assert "all" in environment["command"] and {"commit", "changed"} == set(environment["git"])


def test_single_phases_give_the_same_weights(whole_run, call_main, tmp_path) -> None:
    for phase, following in (("teacher", "crd"), ("crd", "kd"), ("kd", "baselines")):
        done = call_main(tmp_path, "--phase", phase)
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1].startswith(f"next: python main.py --phase {following} --config ")
    done = call_main(tmp_path, "--phase", "baselines", "--quiet")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("teacher is ")]
    assert len(lines) == 5 and done.stderr == ""  # one line a method, and the next command
    assert_same_weights(whole_run[0] / "tiny", tmp_path / "tiny")


def test_a_finished_run_trains_nothing_again(run_copy, call_main) -> None:
    before = list_files(run_copy)
    done = call_main(run_copy, "--phase", "all")
    assert done.returncode == 0
    assert done.stdout.count("finished before, kept") == len(JOBS)
    after = list_files(run_copy)
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {"config.yaml", "environment.json", "identity.json"} and before.keys() == after.keys()


def test_a_new_seed_shares_the_teacher(run_copy, whole_run, call_main) -> None:
    teacher = list_files(run_copy / "tiny" / "teacher")
    done = call_main(run_copy, "--phase", "all", "--seeds", "0", "1", "--set", "training.batch_size=8")
    assert done.returncode == 2 and "methods.kd.stage1.batch_size" in done.stderr
    done = call_main(run_copy, "--phase", "crd", "--seeds", "0", "1")
    assert done.returncode == 0 and "two_stage stage 1 seed 0: finished before, kept" in done.stdout
    assert list_files(run_copy / "tiny" / "teacher") == teacher
    one, other = (load(run_copy / "tiny" / f"seed{seed}" / STAGES[0] / "model.pt") for seed in (0, 1))
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])
    assert_same_weights(run_copy / "tiny", whole_run[0] / "tiny")
    assert load_config(run_copy / "tiny" / "config.yaml").seeds == [0, 1]


def test_a_run_gains_shipped_methods_by_their_names(whole_run, call_main, tmp_path) -> None:
    given = whole_run[0] / "tiny" / "teacher" / "model.pt"
    setting = ("--set", f"teacher.checkpoint={given}", "methods=[kd]")
    done = call_main(tmp_path, "--phase", "all", "--quiet", *setting)
    assert done.returncode == 0, done.stderr
    before = list_files(tmp_path / "tiny" / "seed0" / "kd")
    done = call_main(tmp_path, "--phase", "baselines", *setting, "--methods", "scratch")
    assert done.returncode == 0 and done.stdout.count(": done, ") == 1, done.stderr
    assert done.stdout.splitlines()[-1] == f"next: python main_eval.py {tmp_path / 'tiny'}"
    done = call_main(tmp_path, "--phase", "crd", *setting, "--methods", "two_stage")
    assert done.returncode == 0 and "--phase kd" in done.stdout.splitlines()[-1], done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"--methods two_stage --output-dir {tmp_path}")
    assert list_files(tmp_path / "tiny" / "seed0" / "kd") == before
    config = load_config(tmp_path / "tiny" / "config.yaml")
    assert list(config.methods) == ["kd", "two_stage", "scratch"]  # what it had is kept
    jobs = ("teacher", "seed0/kd", "seed0/scratch")
    assert_same_weights(whole_run[0] / "tiny", tmp_path / "tiny", jobs)
    done = call_main(tmp_path, "--phase", "all", *setting, "--methods", "scrath")
    assert done.returncode == 2 and "methods.scrath" in done.stderr
    for phase in ("teacher", "study"):
        done = call_main(tmp_path, "--phase", phase, "--methods", "kd")
        assert done.returncode == 2 and "--methods is for phases that train students" in done.stderr


def test_a_dry_run_writes_nothing(call_main, tmp_path, tiny_config) -> None:
    before = list_files(tiny_config.parent)
    done = call_main(
        tmp_path, "--phase", "all", "--seeds", "0", "1", "--dry-run", "--set", "methods.kd.losses.kl=0.75"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == [] and list_files(tiny_config.parent) == before
    for text in (
        "weight: 0.75",
        "64 train, 0 val, 32 test images, 4 classes",
        "student: resnet8, 77,652 parameters",
        "machine: cpu, float32",
        "teacher's outputs on disk: 0.00 MB",
        "plan: teacher, crd, crd_kd, kd, scratch, two_stage; seeds 0, 1; 13 of 13 jobs to train, 42 epochs",
        f"scratch seed 1: 4 epochs x 4 steps, all by ce 1 -> {tmp_path / 'tiny' / 'seed1' / 'scratch'}",
        "dry run: nothing was trained, no run folder was written",
    ):
        assert text in done.stdout


@pytest.mark.parametrize(
    "words",
    [("--phase", "all"), ("--phase", "study", "--set", "study.grid=[{data.image_size: [14, 15]}]")],
    ids=["run", "study"],
)
def test_dry_run_writes_no_cache(call_main, tmp_path, words) -> None:
    caching = ("data.image_size=15", f"data.cache_dir={tmp_path / 'cache'}")
    done = call_main(tmp_path / "runs", *words, "--dry-run", "--set", *caching)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])


def test_dry_run_downloads_nothing(call_main, tmp_path) -> None:
    place = (f"data.root={tmp_path / 'data'}", f"data.cache_dir={tmp_path / 'cache'}")
    done = call_main(tmp_path / "runs", "--phase", "all", "--dry-run", "--set", "data.source=cifar10", *place)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--dry-run downloads nothing" in done.stderr and list(tmp_path.iterdir()) == []


def test_dry_run_refuses_a_wrong_config(call_main, tmp_path) -> None:
    done = call_main(tmp_path, "--phase", "all", "--dry-run", "--set", "methods.kd.batch_size=65")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "methods.kd.stage1.batch_size=65" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_options_without_effect_are_warned_of(call_main, tmp_path) -> None:
    words = ("--set", "losses.regression.ridge=0.5", "methods.crd.epochs=3", "--methods", "kd")
    done = call_main(tmp_path, "--phase", "all", "--dry-run", *words)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first.startswith("warning: --set losses.regression.ridge=0.5: losses.regression has no effect")
    assert second.startswith("warning: --set methods.crd.epochs=3: methods.crd has no effect")


@pytest.mark.parametrize(
    ("words", "blamed"),
    [
        (("--set", "training.epochs=6", "losses.crd.temprature=1"), "--set losses.crd.temprature=1: unknown key"),
        (("--seeds", "1", "1"), "--seeds: seeds: each seed once"),
        (("--methods", "kdd"), "--methods kdd: methods.kdd: it has no stages"),
    ],
)
def test_the_argument_to_blame_is_named(call_main, tmp_path, words, blamed) -> None:
    done = call_main(tmp_path, "--phase", "all", *words)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {blamed}") and done.stderr.count("\n") == 1


def test_help_config_lists_every_field(call_main, tmp_path) -> None:
    done = call_main(tmp_path, "--help-config")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and list(tmp_path.iterdir()) == []
    keys = [line.split()[0] for line in lines]
    assert len(set(keys)) == len(keys) and {key for key, *_ in list_fields()} <= set(keys)
    assert {"losses.crd.temperature", "methods.NAME.stageN.train"} <= set(keys)


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("main.py --help", 0, "--help-config"),
        ("main.py --phase al", 2, "did you mean 'all'"),
        ("main.py --phase all --set data.crip=1", 2, "did you mean 'data.crop'"),
        ("main.py --phase all --set losses.crd.temprature=1", 2, "did you mean 'losses.crd.temperature'"),
        ("main.py --phase all --set methods.kd.losses.klm=1", 2, "did you mean 'kl'"),
        ("main_eval.py --help", 0, "--compare"),
        ("main_eval.py --export there --set name=", 2, "error: "),
    ],
)
def test_refusals_do_not_import_torch(command, code, told) -> None:
    name, *words = command.split()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / name), *words], capture_output=True, text=True, timeout=300
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import ")}
    assert done.returncode == code and told in done.stdout + done.stderr
    assert "pydantic" in imported and not {"torch", "numpy", "matplotlib", "sklearn"} & imported


def test_fresh_starts_over_what_the_phase_trains(run_copy, whole_run, call_main) -> None:
    before = list_files(run_copy)
    done = call_main(run_copy, "--phase", "kd", "--fresh")
    assert done.returncode == 0 and "kept" not in done.stdout
    after = list_files(run_copy)
    changed = {path.parent.name for path in after if after[path] != before.get(path)}
    assert changed == {"tiny", "stage2"}
    assert_same_weights(run_copy / "tiny", whole_run[0] / "tiny")
    done = call_main(run_copy, "--phase", "baselines", "--fresh", "--set", "losses.kl.temperature=2")
    assert done.returncode == 2 and "two_stage.stage2.losses.kl.temperature" in done.stderr  # it would stay
    done = call_main(run_copy, "--phase", "crd", "--fresh")
    assert (
        done.returncode == 0 and not (run_copy / "tiny" / "seed0" / STAGES[1]).exists()
    )  # its stage 1 is another
    done = call_main(run_copy, "--phase", "teacher", "--fresh", "--quiet", "--set", "losses.kl.temperature=2")
    assert done.returncode == 0
    assert {path.name for path in (run_copy / "tiny").iterdir() if path.is_dir()} == {"seed0", "teacher"}
    assert not any((run_copy / "tiny" / "seed0").iterdir())


def test_another_config_is_refused_and_names_its_keys(run_copy, call_main) -> None:
    before = list_files(run_copy)
    done = call_main(run_copy, "--phase", "all", "--set", "losses.crd.temperature=0.07", "training.epochs=6")
    assert done.returncode == 2
    assert "made with other values of methods.crd.stage1." in done.stderr
    assert " more: choose another --set name=" in done.stderr and len(done.stderr) < 400
    assert list_files(run_copy) == before


def test_an_unfinished_run_is_named_and_kept(run_copy, call_main) -> None:
    folder = run_copy / "tiny" / "seed0" / STAGES[1]
    (folder / "result.json").unlink()
    before = list_files(run_copy)
    done = call_main(run_copy, "--phase", "all")
    assert done.returncode == 2
    assert f"{folder} is unfinished (2 epochs done): go on with --resume or start over with --fresh" in done.stderr
    assert list_files(run_copy) == before


def test_a_teacher_is_taken_from_another_run(whole_run, call_main, tmp_path) -> None:
    given = whole_run[0] / "tiny" / "teacher" / "model.pt"
    setting = ("--set", f"teacher.checkpoint={given}", "methods=[kd, two_stage]")
    done = call_main(tmp_path, "--phase", "teacher", *setting)
    assert done.returncode == 2 and "go on with --phase crd" in done.stderr
    done = call_main(tmp_path, "--phase", "all", "--quiet", *setting)
    assert done.returncode == 0 and "teacher: done" not in done.stdout
    result = json.loads((tmp_path / "tiny" / "teacher" / "result.json").read_text())
    assert (result["source"], result["source_sha256"]) == (str(given), hash_file(given))
    assert_same_weights(
        whole_run[0] / "tiny", tmp_path / "tiny", ("teacher", "seed0/two_stage/stage2", "seed0/kd")
    )
