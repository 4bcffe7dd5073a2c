"""Inputs that must be refused, by kind: what is given and what the line must name.

python -m tests.faults.bad_inputs    # the table: input, exit code, files that appeared, line

`{}` stands for a folder that `make_inputs` fills.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

import main
import main_eval
from errors import exit_code


@dataclass(frozen=True)
class BadInput:
    """A command line to refuse, and a part of the line that it must print."""

    command: str  # main or main_eval
    words: tuple[str, ...]
    named: str


@dataclass(frozen=True)
class Refusal:
    """What a command said and did."""

    code: int
    printed: str
    added: tuple[str, ...]  # files that were not there before, decoded images aside


def _set(*settings: str, named: str, phase: str = "all") -> BadInput:
    words = ("--phase", phase, "--config", "{}/tiny.yaml", "--output-dir", "{}/runs", "--set")
    return BadInput("main", (*words, *settings), named)


def _file(name: str, named: str) -> BadInput:
    return BadInput("main", ("--phase", "all", "--output-dir", "{}/runs", "--config", f"{{}}/{name}"), named)


def _main(*words: str, named: str) -> BadInput:
    return BadInput("main", words, named)


def _eval(*words: str, named: str) -> BadInput:
    return BadInput("main_eval", words, named)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
TEXTS = {
    "open.yaml": ("crd: {epochs: 3\nkd: [", "not valid YAML"),
    "list.yaml": ("- crd\n- kd\n", "expected keys and values"),
    "word.yaml": ("crd", "expected keys and values"),
    "twice.yaml": ("crd: {dim: 4, dim: 8}", "dim (line 1) stands twice"),
    "large.yaml": ("x" * 1_000_001, "more than 1,000,000 bytes"),
    "deep.yaml": ("[" * 5000, "deeper than 50 levels"),
    "laughs.yaml": (LAUGHS, "aliases stand for more than 10,000"),
    "itself.yaml": ("study: &a {grid: [*a]}", "part of itself"),
    "merge_loop.yaml": ("crd: &a\n  <<: *a", "part of itself"),
    "nul.yaml": ("name: a\0b", "NUL byte"),
    "python.yaml": ("name: !!python/object/apply:os.system [touch owned]", "is not taken"),
    "tag.yaml": ("name: !mine a", "the tag !mine"),
    "list_key.yaml": ("? [1, 2]\n: 3", "keys are words"),
    "number_key.yaml": ("1: 2", "1"),
    "long_number.yaml": ("seeds: [" + "9" * 5000 + "]", "not valid YAML"),
    "octal.yaml": ("seeds: [010]", "reads as octal"),
    "two.yaml": ("name: a\n---\nname: b", "not valid YAML"),
    "no_base.yaml": ("base: nowhere.yaml", "nowhere.yaml: No such file"),
    "list_base.yaml": ("base: [a]", "name one YAML file"),
    "nul_base.yaml": ('base: "a\\0b"', "give a YAML file"),
    "own_base.yaml": ("base: own_base.yaml", "comes back to itself"),
    "chain0.yaml": ("base: chain1.yaml", "more than 20 files"),
}

CASES: list[BadInput] = [
    # names
    *(
        _set(f"name={name}", named="name: ")
        for name in ("..", ".", "a/b", "/tmp/x", '""', "nul", "com1.old", "-x", "a.")
    ),
    _set(f"name={'x' * 101}", named="101 bytes"),
    _set("variants={con: {}}", named="variants"),
    _set("variants={../up: {}}", named="variants"),
    _set("baselines.variants={aux: {}}", named="baselines.variants"),
    _set(f"variants={{{'v' * 101}: {{}}}}", named="101 bytes"),
    # files of YAML
    *(_file(name, named) for name, (_, named) in TEXTS.items()),
    _file("none.yaml", "No such file"),
    _file("pipe", "a device or a pipe"),
    _file("images", "a folder"),
    _file("loop.yaml", "give a YAML file"),
    _file("pickled.pt", "not a text file"),
    BadInput("main", ("--phase", "all", "--config", "/dev/zero"), "a device or a pipe"),
    # values
    *(
        _set(setting, named=setting.partition("=")[0])
        for setting in (
            "crd.temprature=0.07",
            "crd.epochs=many",
            "crd.epochs=yes",
            "crd.epochs=1:30",
            "crd.epochs=2.5",
            "crd.dim=1e10",
            "crd.temperature=.nan",
            "kd.alpha=1.5",
            "kd.alpha",
            "kd.temperature=1:30.5",
            "seeds=[1, 1]",
            "seeds=[99999999999999999999]",
            "seeds=[]",
            "data.mean=[125.3, 123.0, 113.9]",
            "data.split=true",
            "baselines.methods=[kd, kd]",
            "student.taps=[fc, fc]",
            "student.taps=[layer2.0]",
            "precision=int8",
            "kd.optimizer.ema=1",
            "crd.optimizer.accumulate=0",
        )
    ),
    _set("crd.until=plateau", named="data.val_fraction > 0"),
    _set("teacher.until=plateau", named="teacher.until: plateau needs data.val_fraction > 0"),
    _set("teacher.optimizer.accumulate=99", named="teacher.optimizer.accumulate=99: an epoch has"),
    _set("crd.objective=infonce", "crd.negatives=batch", named="mode: instance"),
    _set("study.hypotheses={H1: {first: kd, second: kd}}", named="first and second are both kd"),
    _set(f"study.grid=[{{kd.alpha: {[n / 200 for n in range(150)]}, crd.dim: {list(range(1, 101))}}}]",
         named="15,000 combinations", phase="study"),
    # more than the machine has
    _set("crd.dim=10000000000", named="GB of memory, this machine has"),
    _set("crd.num_negatives=100000000000", named="crd.num_negatives=100000000000: negatives"),
    _set("data.image_size=1000000", named="data.image_size=1000000: 48 decoded images take about 144,000.0 GB"),
    _set("teacher.views=100000000000", named="teacher.views=100000000000: cached outputs"),
    # images
    *(
        _set(f"data.root={{}}/{root}", named=named)
        for root, named in {
            "nowhere": "nowhere",
            "empty": "no class folder with images",
            "pipe": "is no folder",
            "broken": "train/ash/0.png cannot be read as an image",
            "dangling": "dangling/train/ash/link.png: a link to nothing",
            "looping": "looping/train/ash/link.png: a link to nothing or to itself",
            "leaving": "a link out of data.root",
            "leaving_class": "train/cedar: a link out of data.root",
            "piped": "train/ash/pipe.png: a device or a pipe",
            "one_class": "one class, ash,",
            "no_test_class": "train/birch: a class without test images",
            "no_train_class": "test/birch: a class without training images",
            "bomb": "pixels, as files have that are to fill the memory",
            "hollow": "train/cedar: a class without images",
            "no_test": "has train/ but no test/",
        }.items()
    ),
    _set("data.val_fraction=0.001", named="data.val_fraction"),
    _set("teacher.batch_size=33", named="teacher.batch_size=33: there are 32 training images"),
    _set("crd.batch_size=33", named="crd.batch_size=33"),
    _set("teacher.batch_size=1", "data.image_size=4", "data.crop=0", named="batch statistics need more than one"),
    _set("shortcut.cue=file", "shortcut.file={}/pipe", named="shortcut.file"),
    _set("shortcut.cue=file", "shortcut.file={}/list.yaml", named="no column 'file'"),
    # networks and weights
    _set("student.arch=resnet9", named="unknown arch 'resnet9', did you mean"),
    _set("student.taps=[layer3.0, layer9]", named="tap 'layer9' is no module"),
    _set("student.taps=[layer3.0, layer1.0]", named="wrong order, write [layer1.0, layer3.0]"),
    _set("student.taps=[layer3.0, fc]", named="tap 'fc' is the classifier"),
    _set("student.arch=alexnet", 'student.taps=[features.0, "classifier.6:input"]', named="do not go through it"),
    _set("teacher.weights=DEFAULT", named="resnet8 has no published weights"),
    _set("student.arch=resnet18", "student.weights=BEST", named="resnet18 has IMAGENET1K_V1"),
    _set("teacher.arch=resnet18", "teacher.weights=DEFAULT", named="fine-tune them first", phase="crd"),
    *(
        _set(f"teacher.checkpoint={{}}/{name}", named=named, phase="crd")
        for name, named in {
            "none.pt": "no such file",
            "misfit.pt": "does not fit resnet8",
            "pickled.pt": "save a state dict",
            "list.yaml": "save a state dict",
            "pipe": "is no file",
            "empty": "is no file",
        }.items()
    ),
    _set("kd.alpha=0.9", named="there is no teacher", phase="crd"),
    _set("kd.alpha=0.9", named="there is no teacher", phase="baselines"),
    # command lines
    _main(named="--phase is missing"),
    _main("--phase", "al", named="did you mean 'all'"),
    _main("--phas", "all", named="--phas is no option of"),
    _main("--phase", "all", "--sed", "1", named="did you mean '--seeds'"),
    _main("--phase", named="--phase: expected one argument"),
    _main("--phase", "all", "--seeds", "one", named="--seeds: invalid int"),
    _main("--phase", "all", "--seeds", "1", "--set", "seeds=[2]", named="--seeds and --set seeds"),
    _main("--phase", "all", "--phase", "kd", named="--phase stands twice"),
    _main("--phase", "all", "--output-dir", "", named="--output-dir: it is empty"),
    _main("--phase", "all", "--output-dir", "{}/list.yaml", named="is no folder"),
    _main("--phase", "all", "--resume", "--fresh", named="not allowed with argument"),
    _main("--phase", "all", "--shard", "1/2", named="--shard is for --phase study"),
    _main("--phase", "study", "--shard", "3/2", named="--shard 3/2"),
    _main("--phase", "study", "--fresh", named="--fresh: a study"),
    *(
        _main("--phase", "all", "--device", name, named=f"--device {name}")
        for name in ("cpu:1", "abacus", "cuda:99", "mps")
    ),
    _eval("--counts", "1", "2", "3", "4", "--compare", "a", named="--compare is not read together with --counts"),
    _eval("--counts", "1", "2", "3", named="--counts: expected 4 arguments"),
    _eval("--counts", "1", "2", "3", "-4", named="--counts: "),
    _eval("{}/empty", "--teacher", "a", named="--teacher and --student go together"),
    _eval("{}/empty", "--output-dir", "runs", named="--output-dir is not read together with RUN_DIR"),
    _eval("{}/empty", named="is no run"),
    _eval("{}/empty", "--export", "{}/out", named="is no run"),
    _eval("{}/empty", "--export", "{}/list.yaml", named="is no folder"),
    _eval("{}/empty", "--export", "{}/images", named="it holds other files"),
    _eval("{}/empty", "--quantize", named="--quantize is not read together with RUN_DIR"),
    _eval("{}/pipe.npz", named="is no file"),
    _eval("{}/none.npz", named="none.npz"),
    _eval("{}/empty", "--jsn", named="did you mean '--json'"),
    _eval("{}/empty", "{}/images", named="one argument too many"),
    _eval("--compare", "{}/empty", "{}/empty", named="is named twice"),
    _eval("--compare", "", named="--compare: it is empty"),
]  # fmt: skip


def make_inputs(folder: Path) -> None:
    """Fill a folder with what `CASES` name."""
    for name, (text, _) in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    for number in range(1, 25):
        (folder / f"chain{number}.yaml").write_text(f"base: chain{number + 1}.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    for name in ("pipe", "pipe.npz"):
        os.mkfifo(folder / name)
    for name in ("empty", "runs"):
        (folder / name).mkdir()
    (folder / "pickled.pt").write_bytes(pickle.dumps({"model": folder}))
    torch.save({"fc.weight": torch.ones(10, 64)}, folder / "misfit.pt")
    (folder / "tiny.yaml").write_text(
        f"data: {{source: folder, root: {folder}/images, image_size: 16, crop: 2, cache_dir: {folder}/cache}}\n"
        "precision: float32\nteacher: {arch: resnet8, epochs: 1, batch_size: 16}\n"
        "crd: {batch_size: 16, num_negatives: 16, dim: 8}\nkd: {batch_size: 16}\nbaselines: {batch_size: 16}\n"
    )
    make_image_folders(folder)


def make_image_folders(folder: Path) -> None:
    def classes(root: str, train: tuple[str, ...], test: tuple[str, ...], count: int = 2) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        for part, names in (("train", train), ("test", test)):
            for name in names:
                (folder / root / part / name).mkdir(parents=True)
                for number in range(count if part == "train" else count // 2):
                    Image.fromarray(pixels).save(folder / root / part / name / f"{number}.png")
        return folder / root / "train" / "ash"

    two = ("ash", "birch")
    classes("images", two, two, 16)
    (classes("broken", two, two) / "0.png").write_bytes(b"no image")
    (classes("dangling", two, two) / "link.png").symlink_to("nowhere.png")
    (classes("looping", two, two) / "link.png").symlink_to("link.png")
    (classes("leaving", two, two) / "link.png").symlink_to(folder / "images/train/ash/0.png")
    (classes("leaving_class", two, (*two, "cedar")).parent / "cedar").symlink_to(folder / "images/train/ash")
    os.mkfifo(classes("piped", two, two) / "pipe.png")
    classes("one_class", ("ash",), ("ash",))
    classes("no_test_class", two, ("ash",))
    classes("no_train_class", ("ash",), two)
    Image.new("1", (10_000, 10_000)).save(classes("bomb", two, two) / "0.png")
    (classes("hollow", two, two).parent / "cedar").mkdir()
    classes("no_test", two, ())


def refuse(case: BadInput, folder: Path) -> Refusal:
    """Give a command its words in this process."""
    command: Callable[[], None] = {"main": main.run, "main_eval": main_eval.run}[case.command]
    words = [word.replace("{}", str(folder)) for word in case.words]
    before, printed = set(_files(folder)), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"{case.command}.py", *words]),
        _within(folder / "empty"),
        contextlib.redirect_stderr(printed),
    ):
        code = exit_code(command)
    added = sorted(set(_files(folder)) - before)
    return Refusal(code, printed.getvalue(), tuple(added))


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def _files(folder: Path) -> list[str]:
    cache = folder / "cache"
    return [str(path) for path in folder.rglob("*") if cache not in (path, *path.parents)]


def table() -> str:
    """Every input with its exit code, how many files appeared, and the line."""
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        for number, case in enumerate(CASES, start=1):
            found = refuse(case, folder)
            words = " ".join(case.words).replace("--phase all --config {}/tiny.yaml --output-dir {}/runs ", "")
            line = found.printed.strip().replace(name, "{}")
            lines.append(f"{number:3}  {case.command}.py {words[:70]}")
            lines.append(f"     exit code {found.code}, {len(found.added)} new files, {line[:200]}")
    return "\n".join([*lines, f"{len(CASES)} inputs"])


if __name__ == "__main__":
    print(table())
