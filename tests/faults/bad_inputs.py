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


def _set(*settings: str, named: str, phase: str = "all", output: str = "{}/runs") -> BadInput:
    words = ("--phase", phase, "--config", "{}/tiny.yaml", "--output-dir", output, "--set")
    return BadInput("main", (*words, *settings), named)


def _file(name: str, named: str) -> BadInput:
    return BadInput("main", ("--phase", "all", "--output-dir", "{}/runs", "--config", f"{{}}/{name}"), named)


def _main(*words: str, named: str) -> BadInput:
    return BadInput("main", words, named)


def _eval(*words: str, named: str) -> BadInput:
    return BadInput("main_eval", words, named)


IMPORTED = "which is code of your own\n"  # how the line ends that tells of it
OLD = "{}/old"  # where runs of an earlier version are
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
TEXTS = {
    "open.yaml": ("training: {epochs: 3\nseeds: [", "not valid YAML"),
    "list.yaml": ("- kd\n- scratch\n", "expected keys and values"),
    "word.yaml": ("kd", "expected keys and values"),
    "twice.yaml": ("losses: {crd: {dim: 4, dim: 8}}", "dim (line 1) stands twice"),
    "large.yaml": ("x" * 1_000_001, "more than 1,000,000 bytes"),
    "deep.yaml": ("[" * 5000, "deeper than 50 levels"),
    "laughs.yaml": (LAUGHS, "more than 10,000 keys and values, aliases included"),
    "itself.yaml": ("study: &a {grid: [*a]}", "part of itself"),
    "merge_loop.yaml": ("data: &a\n  <<: *a", "part of itself"),
    "nul.yaml": ("name: a\0b", "NUL byte"),
    "python.yaml": ("name: !!python/object/apply:os.system [touch owned]", "constructor for the tag"),
    "tag.yaml": ("name: !mine a", "for the tag '!mine'"),
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
    "old.yaml": ("crd: {epochs: 3}", "crd.epochs is now methods.two_stage.stage1.epochs"),
    "old_base.yaml": ("base: old.yaml", "old.yaml: crd.epochs is now methods.two_stage.stage1.epochs"),
}

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

CASES: list[BadInput] = [
    # names
    *(
        _set(f"name={name}", named="name: ")
        for name in ("..", ".", "a/b", "/tmp/x", '""', "nul", "com1.old", "-x", "a.")
    ),
    _set(f"name={'x' * 101}", named="101 bytes"),
    *(_set(f"methods={{{one}: {{base: kd}}}}", named=f"methods.{one}") for one in ("con", "../up", "aux", "Kd")),
    _set("methods={teacher: {base: kd}}", named="methods.teacher: the name is taken"),
    _set(f"methods={{{'v' * 101}: {{base: kd}}}}", named="101 bytes"),
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
            "losses.crd.temprature=0.07",
            "losses.crd.dim=1e10",
            "losses.crd.dim=yes",
            "losses.crd.temperature=.nan",
            "losses.crd.temperature=0",
            "losses.crd.bank_momentum=1",
            "losses.crd.taps={last: -1}",
            "losses.crd.taps={last: yes}",
            "losses.regression.whitening=0.5",
            "losses.kl.temperature=1:30.5",
            "losses.ce.label_smoothing=1.5",
            "losses=3",
            "training.epochs=many",
            "training.epochs=yes",
            "training.epochs=1:30",
            "training.epochs=2.5",
            "training.epochs",
            "training.optimizer.ema=1",
            "training.optimizer.accumulate=0",
            "methods=[kd, kd]",
            "methods=[kd, 3]",
            "methods=kd",
            "seeds=[1, 1]",
            "seeds=[99999999999999999999]",
            "seeds=[]",
            "data.mean=[125.3, 123.0, 113.9]",
            "data.split=true",
            "student.taps=[layer2.0, fc:input]",
            "student.taps={Last: fc:input}",
            "precision=int8",
        )
    ),
    *(
        _set(f"methods.{setting}", named=f"methods.{key}")
        for setting, key in {
            "kd.epochs=many": "kd.stage1.epochs",
            "kd.epochs=yes": "kd.stage1.epochs",
            "kd.epochs=2.5": "kd.stage1.epochs",
            "kd.epochz=3": "kd.stage1.epochz, did you mean 'methods.kd.stage1.epochs'?",
            "kd.train=body": "kd.stage1.train",
            "kd.losses.kl=-1": "kd.stage1.losses.kl.weight",
            "kd.losses.kl=.nan": "kd.stage1.losses.kl.weight",
            "kd.losses.kl=many": "kd.stage1.losses.kl",
            "kd.losses.kl=yes": "kd.stage1.losses.kl.weight",
            "kd.losses.kl.weight=.inf": "kd.stage1.losses.kl.weight",
            "kd.losses.kl.ramp_up=0.5": "kd.stage1.losses.kl.ramp_up",
            "kd.losses.kl.ramp_up=yes": "kd.stage1.losses.kl.ramp_up",
            "kd.losses.kl.temperature=0": "kd.stage1.losses.kl.temperature",
            "kd.losses.kl.temprature=1": "kd.stage1.losses.kl.temprature, did you mean",
            "two_stage.stage1.losses.crd.temprature=0.07": "two_stage.stage1.losses.crd.temprature, did you mean",
            "two_stage.stage1.optimizer.accumulate=0": "two_stage.stage1.optimizer.accumulate",
            "two_stage.stage1=3": "two_stage: stage1 is 3, give a section",
            "kd=3": "kd",
        }.items()
    ),
    # keys of earlier versions
    *(
        _set(setting, named=f"{setting.partition('=')[0]} is now {now}")
        for setting, now in {
            "crd.temperature=0.07": "losses.crd.temperature",
            "crd.epochs=3": "methods.two_stage.stage1.epochs",
            "crd.objective=regression": "losses.crd.objective; regression is a loss of its own",
            "kd.alpha=0.5": "the weights in methods.two_stage.stage2.losses",
            "kd.train=head": "methods.two_stage.stage2.train",
            "baselines.methods=[kd]": "methods",
            "variants={head: {kd: {train: head}}}": "methods: NAME: {base: two_stage",
            "teacher.until=plateau": "teacher.early_stopping",
            "teacher.label_smoothing=0.1": "teacher.losses.ce.label_smoothing",
        }.items()
    ),
    # methods and their stages
    _set("methods=[kd, crd_dk]", named="methods.crd_dk: it has no stages, and none is shipped"),
    _set("losses.kll.temperature=2", named="losses: there is no kll, did you mean 'kl'?"),
    _set("methods.mine=null", named="methods.mine: it has no stages"),
    _set("methods.mine={base: nowhere}", named="methods.mine: there is no method nowhere"),
    _set("methods.mine={twin_of: nowhere}", named="methods.mine: there is no method nowhere"),
    _set("methods.mine={twin_of: two_stage, stage1: {epochs: 1}}", named="mine: twin_of gives its one stage"),
    _set("methods.mine={base: mine}", named="methods.mine: it builds on itself: mine -> mine"),
    _set("methods={a: {base: b}, b: {twin_of: a}}", named="builds on itself: a -> b -> a"),
    _set("methods.kd.upweight_errors_of=kd", named="methods.kd: it would wait for itself: kd -> kd"),
    _set("methods.kd.upweight_errors_of=scratch", "methods.scratch.starts_from=kd", named="wait for itself: "),
    _set("methods.kd.upweight_errors_of=nowhere", named="stage1.upweight_errors_of: nowhere is no method"),
    _set("methods.kd.starts_from=teacher", named="methods.kd.stage1.starts_from: teacher needs train: head"),
    _set("methods.two_stage.stage2.starts_from=kd", named="methods.two_stage.stage2.starts_from: a later stage"),
    _set("methods.two_stage.stage2.teacher=kd", named="stage2.teacher: kd does not start from the teacher"),
    _set("methods.two_stage.stage2.epochs=null", named="methods.two_stage: more than one stage has no epochs"),
    _set("methods.two_stage.stage2.epochs=99", named="two_stage: stage1 has no epochs, and the other stages"),
    _set("methods.two_stage.stage4.epochs=1", named="methods.two_stage: stage4 comes without stage3"),
    _set("methods.kd.losses={kl: false, ce: false}", named="methods.kd.stage1.losses"),
    _set("methods.kd.losses={kl: 0, ce: 0}", named="methods.kd.stage1: losses: every weight is 0"),
    _set("methods.kd.losses.crds=1", named="losses: there is no crds, did you mean 'crd'?"),
    _set("methods.kd.losses={kl: 1, crd: {taps: {stage9: 1}}}", named="student: CifarResNet has no tap stage9"),
    _set("methods.two_stage.stage1.losses.ce=1", named="stage1.losses.ce: train: features leaves the classifier"),
    _set("methods.two_stage.stage1.losses={crd: false, kl: 1}", named="stage1.losses.kl: train: features leaves"),
    _set("methods.kd.train=features", named="methods.kd.stage1.losses."),
    _set("methods.kd.images=balanced", named="methods.kd.stage1.images: balanced needs data.val_fraction > 0"),
    _set("methods.kd.early_stopping={patience: 2}", named="stage1.early_stopping needs data.val_fraction > 0"),
    _set("training.early_stopping={patience: 2}", named="data.val_fraction > 0, test data decides nothing"),
    _set("teacher.early_stopping={patience: 2}", named="teacher.early_stopping needs data.val_fraction > 0"),
    _set("teacher.optimizer.accumulate=99", named="teacher.optimizer.accumulate=99: an epoch has"),
    _set("teacher.losses={kl: 1}", named="teacher.losses.kl: the teacher has no teacher"),
    _set("losses.crd.objective=infonce", "losses.crd.negatives=batch", named="losses.crd: negatives: batch needs"),
    # losses of one's own
    _set("losses.mine.class=own_losses:Maps", "methods.two_stage.stage2.train=head",
         "methods.two_stage.stage2.losses.mine=1", named="stage2.losses.mine: it trains features through maps"),
    _set("losses.mine.class=own_losses:Maps", "methods.kd.losses.mine=1", named="mine: student: a loss needs"),
    _set("losses.mine.class=own_losses:NoLoss", "methods.kd.losses.mine=1", named="NoLoss: it is no subclass of"),
    _set("losses.mine.class=own_losses:Undecided", named="Undecided needs a default for its option scale"),
    _set("losses.mine.class=own_losses:Missing", named="has no Missing"),
    _set("losses.mine.class=own_losses", named="losses: there is no own_losses"),
    _set("losses.mine.class=broken_losses:Any", named="importing broken_losses raised"),
    _set("methods.kd.losses={'nowhere.losses:Mine': 1}", named="losses nowhere.losses:Mine: no module nowhere"),
    # runs of earlier versions
    *(
        _set("name=run", named="old/run/config.yaml was written by an earlier version", phase=phase, output=OLD)
        for phase in ("teacher", "all")
    ),
    _eval("{}/old/run", named="old/run/config.yaml was written by an earlier version"),
    # studies
    _set("study.hypotheses={H1: {measure: top1, first: kd, second: kd}}", named="first and second are both kd"),
    _set("study.hypotheses={H1: {measure: topl, first: kd, second: scratch}}", named="measure", phase="study"),
    _set("study.hypotheses={H1: {first: kd, second: nowhere}}", named="nowhere", phase="study"),
    _set("study.grid=[{losses.kl.temperature: [.inf]}]", named="losses.kl.temperature: give a finite number"),
    _set(f"study.grid=[{{losses.kl.temperature: {list(range(1, 151))}, losses.crd.dim: {list(range(1, 101))}}}]",
         named="15,000 combinations", phase="study"),
    # more than the machine has
    _set("losses.crd.dim=10000000000", named="GB of memory, this machine has"),
    _set("losses.crd.num_negatives=100000000000",
         named="methods.two_stage.stage1.losses.crd.num_negatives=100000000000: negatives"),
    _set("data.image_size=1000000", named="data.image_size=1000000: 48 decoded images take about 144,000.0 GB"),
    _set("teacher.cached_views=100000000000", named="teacher.cached_views=100000000000: cached outputs"),
    # images
    *(
        _set(f"data.root={{}}/{root}", named=named)
        for root, named in {
            "nowhere": "nowhere",
            "empty": "no class folder with images",
            "pipe": "is not a folder",
            "broken": "train/ash/0.png cannot be read as an image",
            "dangling": "dangling/train/ash/link.png: a link to nothing",
            "looping": "looping/train/ash/link.png: a link to nothing or to itself",
            "leaving": "a link out of data.root",
            "leaving_class": "train/cedar: a link out of data.root",
            "piped": "train/ash/pipe.png: not a file with an image",
            "one_class": "1 class of training images",
            "no_test_class": "class birch has no test images",
            "no_train_class": "class birch has no training images",
            "bomb": "pixels, which may fill the memory",
            "hollow": "train/cedar: a class without images",
            "no_test": "has train/ but no test/",
        }.items()
    ),
    _set("data.val_fraction=0.001", named="data.val_fraction"),
    _set("teacher.batch_size=33", named="teacher.batch_size=33: there are 32 training images"),
    _set("training.batch_size=33", named=".batch_size=33: there are 32 training images"),
    _set("methods.two_stage.stage2.batch_size=33", named="methods.two_stage.stage2.batch_size=33"),
    _set("teacher.batch_size=1", "data.image_size=4", "data.crop=0", named="batch statistics need more than one"),
    _set("shortcut.cue=file", "shortcut.file={}/pipe", named="shortcut.file"),
    _set("shortcut.cue=file", "shortcut.file={}/list.yaml", named="no column 'file'"),
    # networks and weights
    _set("student.arch=resnet9", named="unknown arch 'resnet9', did you mean"),
    _set("student.taps={last: layer9}", named="tap 'layer9' is no module"),
    _set("teacher.taps={last: fc}", named="taps.last: fc is the classifier"),
    _set("student.arch=alexnet", 'student.taps={last: "classifier.6:input"}', named="do not go through it"),
    _set("student.taps={penultimate: layer1, last: layer1}", named="student.allow_untrained=true"),
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
    _set("seeds=[1]", named="there is no teacher", phase="crd"),
    _set("seeds=[1]", named="there is no teacher", phase="baselines"),
    # command lines
    _main(named="--phase is missing"),
    _main("--phase", "al", named="did you mean 'all'"),
    _main("--phas", "all", named="--phas is no option of"),
    _main("--phase", "all", "--sed", "1", named="did you mean '--seeds'"),
    _main("--phase", named="--phase: expected one argument"),
    _main("--phase", "all", "--seeds", "one", named="--seeds: invalid int"),
    _main("--phase", "all", "--methods", "crd_dk", named="methods.crd_dk: it has no stages"),
    _main("--phase", "all", "--methods", named="--methods: expected at least one argument"),
    _main("--phase", "teacher", "--methods", "kd", named="--methods is for phases that train students"),
    _main("--phase", "kd", "--methods", "kd", named="--phase kd: no method of this run has more than one stage"),
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
    _eval("--counts", "1", "2", "3", "4", "--compare", "a", named="--compare: not allowed with argument --counts"),
    _eval("--counts", "1", "2", "3", named="--counts: expected 4 arguments"),
    _eval("--counts", "1", "2", "3", "-4", named="--counts: "),
    _eval("{}/empty", "--teacher", "a", named="not allowed with argument"),
    _eval("{}/empty", "--output-dir", "runs", named="--output-dir is not read together with RUN_DIR"),
    _eval("{}/empty", named="is no run"),
    _eval("{}/empty", "--export", "{}/out", named="is no run"),
    _eval("{}/empty", "--export", "{}/list.yaml", named="is no folder"),
    _eval("{}/empty", "--export", "{}/images", named="it holds other files"),
    _eval("{}/empty", "--quantize", named="--quantize is for --export"),
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
    for name in ("empty", "own", "runs"):
        (folder / name).mkdir()
    (folder / "pickled.pt").write_bytes(pickle.dumps({"model": folder}))
    torch.save({"fc.weight": torch.ones(10, 64)}, folder / "misfit.pt")
    (folder / "tiny.yaml").write_text(
        f"data: {{source: folder, root: {folder}/images, image_size: 16, crop: 2, cache_dir: {folder}/cache}}\n"
        "precision: float32\nteacher: {arch: resnet8, epochs: 1, batch_size: 16}\n"
        "losses: {crd: {num_negatives: 16, dim: 8}}\ntraining: {epochs: 2, batch_size: 16}\n"
        "methods: {scratch: , kd: , two_stage: }\n"
    )
    (folder / "own" / "own_losses.py").write_text(OWN_LOSSES)
    (folder / "own" / "broken_losses.py").write_text("1 / 0")
    (folder / "old" / "run").mkdir(parents=True)
    (folder / "old" / "run" / "config.yaml").write_text("name: run\ncrd: {epochs: 3}\nkd: {epochs: 1}\n")
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
    """Give a command its words in this process; that code of one's own was imported is no part of what it says."""
    command: Callable[[], None] = {"main": main.run, "main_eval": main_eval.run}[case.command]
    words = [word.replace("{}", str(folder)) for word in case.words]
    before, printed = set(_files(folder)), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"{case.command}.py", *words]),
        _within(folder / "own"),
        mock.patch.object(sys, "dont_write_bytecode", True),
        contextlib.redirect_stderr(printed),
    ):
        code = exit_code(command)
    added = sorted(set(_files(folder)) - before)
    lines = [line for line in printed.getvalue().splitlines(keepends=True) if not line.endswith(IMPORTED)]
    return Refusal(code, "".join(lines), tuple(added))


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
