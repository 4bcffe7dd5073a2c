"""Bad input to every option and command: one line that names it, exit code 2, nothing new on disk."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
import main_eval
from errors import UserError
from settings.loss_options import fill_losses, list_options
from settings.reading import DEFAULT_CONFIG, list_fields, load_config
from tests.faults.harness import Outcome, Workspace, call_command

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
OWN_LOSSES = """
from losses.loss import Loss


class NoLoss:
    pass


class Maps(Loss):
    needs_maps = True
    taps = {"last": 1.0}

    def forward(self, student, teacher, samples):
        return student.maps["last"].sum()


class Undecided(Loss):
    def __init__(self, scale: float) -> None:
        super().__init__()
"""

TEXTS = {  # of config files: what the line says
    "training: {epochs: 3\nseeds: [": "not valid YAML",
    "- kd\n- scratch\n": "expected keys and values",
    "losses: {crd: {dim: 4, dim: 8}}": "dim",
    "x" * 1_000_001: "bytes",
    "[" * 5000: "levels",
    LAUGHS: "aliases",
    "study: &a {grid: [*a]}": "part of itself",
    "name: a\0b": "NUL byte",
    "name: !!python/object/apply:os.system [touch owned]": "tag",
    "? [1, 2]\n: 3": "keys",
    "seeds: [" + "9" * 5000 + "]": "YAML",
    "seeds: [010]": "octal",
    "name: a\n---\nname: b": "YAML",
    "base: nowhere.yaml": "nowhere.yaml",
    "base: [a]": "base|YAML file",
    "base: text.yaml": "itself",
    "crd: {epochs: 3}": r"methods\.two_stage\.stage1\.epochs",
}
SETTINGS = {  # joined by "; ": what the line names, by default the key of the last one
    **dict.fromkeys(("name=..", "name=a/b", 'name=""', "name=nul", f"name={'x' * 101}"), "name"),
    "methods={teacher: {base: kd}}": "methods.teacher",
    "methods={../up: {base: kd}}": "methods.../up",
    "methods={Kd: , kd: }": "methods.kd|methods.Kd",
    "training.epochs": "training.epochs",
    "training.epochs=1:30": "",
    "training.epochs=.inf": "",
    f"training.epochs={'9' * 400}": r"training.epochs: .*\.\.\.",
    "training.optimizer.lr=1e308": "",
    "seeds=[1, 1]": "",
    "seeds=[99999999999999999999]": "",
    "losses.crd.temprature=0.07": "losses.crd.temprature, did you mean",
    "losses.crd.temperature=.nan": "",
    "losses.crd.temperature=0": "",
    "losses.crd.taps={last: -1}": "",
    "losses.kll.temperature=2": "kll, did you mean 'kl'",
    "kd.alpha=0.5": "methods.two_stage.stage2.losses",
    "methods=[kd, kd]": "",
    "methods=[kd, crd_dk]": "methods.crd_dk",
    "methods.mine=null": "",
    "methods.mine={base: nowhere}": "methods.mine: there is no method nowhere",
    "methods={a: {base: b}, b: {twin_of: a}}": "a -> b -> a",
    "methods.mine={twin_of: two_stage, stage1: {epochs: 1}}": "methods.mine",
    "methods.kd.epochz=3": "methods.kd.stage1.epochz, did you mean .*epochs'",
    "methods.kd.epochs=2.5": "methods.kd.stage1.epochs",
    "methods.kd.train=body": "methods.kd.stage1.train",
    "methods.kd.losses.kl=-1": "methods.kd.stage1.losses.kl",
    "methods.kd.losses.kl.ramp_up=0.5": "methods.kd.stage1.losses.kl.ramp_up",
    "methods.kd.losses={kl: 0, ce: 0}": "methods.kd.stage1",
    "methods.kd.losses={kl: 1, crd: {taps: {stage9: 1}}}": "stage9",
    "methods.kd.upweight_errors_of=kd": "kd -> kd",
    "methods.kd.upweight_errors_of=nowhere": "methods.kd.stage1.upweight_errors_of",
    "methods.kd.starts_from=teacher": "methods.kd.stage1.starts_from",
    "methods.kd.images=balanced": "methods.kd.stage1.images: balanced needs data.val_fraction",
    "methods.two_stage.stage1=3": "methods.two_stage",
    "methods.two_stage.stage2.starts_from=kd": "",
    "methods.two_stage.stage2.epochs=null": "methods.two_stage",
    "methods.two_stage.stage2.epochs=99": "two_stage",
    "methods.two_stage.stage4.epochs=1": "methods.two_stage",
    "methods.two_stage.stage1.losses.ce=1": "",
    "teacher.early_stopping={patience: 2}": "teacher.early_stopping needs data.val_fraction",
    "teacher.optimizer.accumulate=99": "",
    "teacher.losses={kl: 1}": "teacher.losses.kl",
    "losses.crd.objective=infonce; losses.crd.negatives=batch": "losses.crd",
    # losses of the user's own
    "losses.mine.class=own_losses:Maps; methods.two_stage.stage2={train: head, losses: {mine: 1}}": "mine",
    "losses.mine.class=own_losses:NoLoss; methods.kd.losses.mine=1": "NoLoss",
    "losses.mine.class=own_losses:Undecided": "Undecided needs a default for its option scale",
    "losses.mine.class=own_losses:Missing": "Missing",
    "losses.mine.class=own_losses": "own_losses",
    "losses.mine.class=broken_losses:Any": "broken_losses",
    "methods.kd.losses={'nowhere.losses:Mine': 1}": "nowhere",
    # studies
    "study.hypotheses={H1: {measure: top1, first: kd, second: kd}}": "kd",
    "study.grid=[{losses.kl.temperature: [.inf]}]": "losses.kl.temperature",
    # more than the machine has
    "losses.crd.dim=10000000000": "GB of memory",
    "losses.crd.num_negatives=100000000000": "losses.crd.num_negatives",
    "data.image_size=1000000": "data.image_size=1000000: .* GB",
    "teacher.cached_views=100000000000": "teacher.cached_views",
    # images
    "data.root={}/nowhere": "nowhere",
    "data.root={}/pipe": "pipe",
    "data.root={}/empty": "empty",
    "data.val_fraction=0.001": "data.val_fraction",
    "teacher.batch_size=37": "",
    "methods.two_stage.stage2.batch_size=37": "",
    "teacher.batch_size=1; data.image_size=4; data.crop=0": "batch statistics",
    "shortcut.cue=file; shortcut.file={}/pipe": "",
    "shortcut.cue=file; shortcut.file={}/list.yaml": "file",
    # networks and weights
    "student.arch=resnet9": "resnet9.*, did you mean",
    "student.taps={last: layer9}": "layer9",
    "teacher.taps={last: fc}": "taps.last",
    "student.taps={penultimate: layer1, last: layer1}": "student",
    "teacher.weights=DEFAULT": "resnet8 has no published weights",
    "student.arch=resnet18; student.weights=BEST": "IMAGENET1K_V1",
    "seeds=[1]; name=other": "there is no teacher",
    "teacher.checkpoint={}/none.pt": "none.pt",
    "teacher.checkpoint={}/misfit.pt": "misfit.pt",
    "teacher.checkpoint={}/pickled.pt": "pickled.pt",
    "teacher.checkpoint={}/list.yaml": "list.yaml",
    "teacher.checkpoint={}/pipe": "pipe",
}
COMMANDS = {  # words of main.py, or of main_eval.py where they begin with it
    "": "--phase is missing",
    "--phase al": "did you mean 'all'",
    "--phas all": "did you mean '--phase'",
    "--phase": "--phase",
    "--phase all --seeds one": "--seeds",
    "--phase all --methods crd_dk": "crd_dk",
    "--phase teacher --methods kd": "--methods",
    "--phase kd --methods kd": "--phase kd",
    "--phase all --seeds 1 --set seeds=[2]": "--seeds and --set seeds",
    "--phase all --phase kd": "--phase stands twice",
    "--phase all --output-dir {}/list.yaml": "list.yaml",
    "--phase all --resume --fresh": "--fresh|--resume",
    "--phase all --shard 1/2": "--shard",
    "--phase study --shard 3/2": "--shard",
    "--phase all --device cuda:99": "--device cuda:99",
    "--phase all --device abacus": "--device abacus",
    "--phase all --config {}/none.yaml": "none.yaml",
    "--phase all --config {}/pipe": "pipe",
    "--phase all --config {}/images": "images",
    "--phase all --config {}/pickled.pt": "pickled.pt",
    "--phase all --config /dev/zero": "/dev/zero",
    "--phase all --output-dir {}/old --set name=run": "old/run/config.yaml",
    "main_eval {}/old/run": "old/run/config.yaml",
    "main_eval --counts 1 2 3": "--counts",
    "main_eval --counts 1 2 3 -4": "--counts",
    "main_eval --counts 1 2 3 4 --compare a": "--compare.* --counts",
    "main_eval {}/empty": "is no run",
    "main_eval {}/empty --teacher a": "--teacher",
    "main_eval {}/empty --export {}/images": "images",
    "main_eval {}/empty --quantize": "--quantize",
    "main_eval {}/pipe.npz": "pipe.npz",
    "main_eval {}/none.npz": "none.npz",
    "main_eval --compare {}/empty {}/empty": "twice",
}


@pytest.fixture
def inputs(workspace, monkeypatch):
    """Add files to name, and start commands in a folder with losses of the user's own."""
    folder = workspace.folder
    for name in ("empty", "own", "old/run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("pipe", "pipe.npz"):
        os.mkfifo(folder / name)
    (folder / "list.yaml").write_text("- kd\n")
    (folder / "pickled.pt").write_bytes(pickle.dumps({"model": folder}))
    torch.save({"fc.weight": torch.ones(10, 64)}, folder / "misfit.pt")
    (folder / "own" / "own_losses.py").write_text(OWN_LOSSES)
    (folder / "own" / "broken_losses.py").write_text("1 / 0")
    (folder / "old" / "run" / "config.yaml").write_text("name: run\ncrd: {epochs: 3}\nkd: {epochs: 1}\n")
    monkeypatch.chdir(folder / "own")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return workspace


def list_files(workspace: Workspace) -> set[Path]:
    return {path for path in workspace.folder.rglob("*") if workspace.cache not in (path, *path.parents)}


def check_refused(workspace: Workspace, run: Callable[[], Outcome], pattern: str) -> None:
    before = list_files(workspace)
    done = run()
    lines = [line for line in done.err.splitlines(keepends=True) if "code of your own" not in line]
    Outcome(done.code, done.out, "".join(lines)).check_line(pattern)
    assert list_files(workspace) == before


def test_odd_value_of_any_option_is_refused() -> None:
    for key, *_ in (*list_fields(), *list_options()):
        with pytest.raises(UserError, match=re.escape(key)):
            fill_losses(load_config(DEFAULT_CONFIG, [f"{key}=[[[]]]"]))


@pytest.mark.parametrize("setting", SETTINGS)
def test_bad_setting_is_refused(inputs, setting) -> None:
    settings = setting.replace("{}", str(inputs.folder)).split("; ")
    name = [] if "name=" in setting else ["name=other"]
    phase = (
        "study" if "study." in setting else "crd" if "checkpoint" in setting or "seeds=[1]; " in setting else "all"
    )
    expected = SETTINGS[setting] or re.escape(settings[-1].partition("=")[0])
    check_refused(inputs, lambda: inputs.train("--phase", phase, "--set", *name, *settings), expected)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20].encode("unicode_escape").decode())
def test_bad_config_file_is_refused(inputs, text) -> None:
    path = inputs.folder / "text.yaml"
    path.write_text(text, encoding="utf-8")
    words = ("--phase", "all", "--config", str(path), "--output-dir", str(inputs.folder / "new"))
    check_refused(inputs, lambda: call_command(main.run, "main.py", *words), TEXTS[text])


@pytest.mark.parametrize("line", COMMANDS)
def test_bad_command_line_is_refused(inputs, line) -> None:
    script, *words = line.replace("{}", str(inputs.folder)).split() or [""]
    if script != "main_eval":
        words = [word for word in (script, *words) if word]
    command = main_eval.run if script == "main_eval" else main.run
    check_refused(inputs, lambda: call_command(command, "command", *words), COMMANDS[line])


def save_bomb(path: Path) -> None:
    Image.fromarray(np.zeros((10_000, 10_000), dtype=bool)).save(path)


IMAGES: dict[str, Callable[[Path, Path], object]] = {  # what the line names: what is done to a class and an image
    "0.png cannot be read as an image": lambda ash, image: image.write_bytes(b"no image"),
    "link.png: a link to nothing": lambda ash, image: (ash / "link.png").symlink_to("nowhere.png"),
    "link.png: a link to nothing or to itself": lambda ash, image: (ash / "link.png").symlink_to("link.png"),
    "link.png: a link out of": lambda ash, image: (ash / "link.png").symlink_to(ash.parents[2] / "small.yaml"),
    "elm: a link out of": lambda ash, image: (ash.parent / "elm").symlink_to(ash.parents[2]),
    "pipe.png: not a file with an image": lambda ash, image: os.mkfifo(ash / "pipe.png"),
    "pixels": lambda ash, image: save_bomb(image),
    "elm: a class without images": lambda ash, image: (ash.parent / "elm").mkdir(),
    "ash has no training images": lambda ash, image: shutil.rmtree(ash),
    "ash has no test images": lambda ash, image: shutil.rmtree(ash.parents[1] / "test" / "ash"),
    "no test/": lambda ash, image: shutil.rmtree(ash.parents[1] / "test"),
    "1 class of training images": lambda ash, image: [
        shutil.rmtree(ash.parents[1] / part / name) for part in ("train", "test") for name in ("birch", "cedar")
    ],
}


@pytest.mark.parametrize("expected", IMAGES)
def test_bad_folder_of_images_is_refused(workspace, expected) -> None:
    ash = workspace.folder / "images" / "train" / "ash"
    IMAGES[expected](ash, ash / "0.png")
    check_refused(workspace, lambda: workspace.train("--phase", "all", "--set", "name=other"), expected)


def test_refusal_in_a_process_of_its_own(tmp_path) -> None:
    command = [sys.executable, str(Path(main.__file__)), "--phas", "all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --phas is no option of main.py, did you mean '--phase'? (--help lists all)\n"
    assert list(tmp_path.iterdir()) == []


def test_later_stage_needs_the_first(workspace) -> None:
    shutil.rmtree(workspace.run / "seed0" / "two_stage" / "stage1")
    done = workspace.train("--phase", "kd", "--fresh")
    done.check_line("two_stage stage 2 seed 0 needs two_stage stage 1")
