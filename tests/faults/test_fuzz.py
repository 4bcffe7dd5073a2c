"""Input that nobody would write is refused in one line or read right. FUZZ=1000 tries more examples."""

from __future__ import annotations

import copy
import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import main
import main_eval
from dataset.files.decode import decode_files
from errors import MachineError, UserError
from models.checkpoint import load, load_weights, save
from models.whole import hash_file
from settings.loss_options import list_options
from settings.reading import list_fields, load_config, to_yaml
from study.grid import list_runs
from tests.faults.harness import (
    LONG,
    Outcome,
    Workspace,
    capture_warnings,
    evaluate,
    restore_snapshot,
)
from training.run.record_file import read_record, write_record

TRIALS = int(os.environ.get("FUZZ", "5"))
TEXT = st.text(max_size=8) | st.sampled_from(
    ["", "..", "/", "a\nb", "nan", "1e999", "\x1b[2J", "ß", "crd", "teacher", "0x1p3"]
)
NUMBERS = (
    st.integers(-5, 300) | st.floats() | st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30, 1e-300, 1e308])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
STUDY: dict[str, Any] = {
    "name": "fuzzed",
    "seeds": [0, 1],
    "data": {"val_fraction": 0.25, "mean": [0.5, 0.5, 0.5]},
    "student": {"taps": {"penultimate": "layer2", "last": "layer3"}},
    "shortcut": {"cue": "patch", "conflicting": 0.1},
    "losses": {"crd": {"dim": 8, "taps": {"last": 1.0}}, "kl": {"temperature": 2.0}},
    "training": {"epochs": 6, "optimizer": {"lr": 0.1, "schedule": "cosine"}},
    "methods": {
        "kd": {"losses": {"kl": 0.5, "ce": {"weight": 0.5, "fade": True, "label_smoothing": 0.1}}},
        "two_stage": {"stage1": {"epochs": 4}, "stage2": {"train": "head", "epochs": None}},
        "own": [{"losses": {"ce": 1}, "epochs": 0.5}, {"train": "head", "losses": {"kl": 1, "ce": 0}}],
        "at_once": {"twin_of": "two_stage", "upweight_errors_of": "kd"},
        "scratch": None,
    },
    "study": {
        "grid": [{"losses.kl.temperature": [2.0, 4.0], "shortcut.conflicting": [0.1]}],
        "hypotheses": {"H1": {"measure": "clean", "first": "kd", "second": "two_stage"}},
    },
}
WORDS = ("--phase", "--config", "--set", "--seeds", "--device", "--resume", "--fresh", "--shard", "--teacher")
WORDS += ("--student", "--counts", "--compare", "--export", "--model", "--json", "study", "all", "1/2", "0", "a=b")


@st.composite
def change_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw the bytes after up to three changes, each at a place of its own."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, max(len(content) - 1, 0)))
        added = draw(st.binary(max_size=6))
        end = draw(st.sampled_from([start, start + len(added), len(content)]))  # insert, replace, cut
        content = content[:start] + added + content[end:]
    return content


def list_paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the place of each part of nested dicts and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, part in pairs for path in [(*above, key), *list_paths(part, (*above, key))]]


@st.composite
def change_values(draw: st.DrawFn, whole: Any) -> Any:
    """Draw nested dicts and lists with up to three parts replaced, removed or renamed."""
    found = copy.deepcopy(whole)
    for _ in range(draw(st.integers(0, 3))):
        paths = list_paths(found)
        if not paths:
            return draw(VALUES)
        *above, last = draw(st.sampled_from(paths))
        section = found
        for key in above:
            section = section[key]
        how = draw(st.sampled_from(["replace", "remove", "rename"]))
        old = section[last] if how == "replace" else section.pop(last)
        if how == "replace":
            section[last] = draw(VALUES)
        elif how == "rename" and isinstance(section, dict):
            section[draw(st.text(max_size=6))] = old
    return found


def is_same(given: Any, read: Any) -> bool:
    """Return whether a value was read as it was given, a number in quotes as the number, NaN as NaN."""
    if isinstance(given, dict) and isinstance(read, dict):
        return all(key == "base" or is_same(value, read[key]) for key, value in given.items())
    is_number = isinstance(given, str) and isinstance(read, int | float) and float(given) == read
    return given == read or str(given) == str(read) or is_number


def check_config(workspace: Workspace, content: bytes) -> None:
    """Read a config, and again what it was read as."""
    path = workspace.folder / "fuzzed.yaml"
    path.write_bytes(content)
    config = load_config(path)
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config
    names = [run.name for run in list_runs(config)]
    assert len(set(names)) == len(names)


def check_values(workspace: Workspace, values: Any) -> None:
    check_config(workspace, yaml.safe_dump(values, allow_unicode=True).encode())
    read = load_config(workspace.folder / "fuzzed.yaml").model_dump(mode="json")
    given = {key: value for key, value in (values or {}).items() if key != "methods"}
    assert is_same(given, read)


def check_override(workspace: Workspace, setting: tuple[str, Any]) -> None:
    key, value = setting
    word = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).strip()
    (workspace.folder / "empty.yaml").write_text("", encoding="utf-8")
    config = load_config(workspace.folder / "empty.yaml", [f"{key}={word}"])
    check_config(workspace, to_yaml(config).encode())


def check_words(workspace: Workspace, words: list[str]) -> None:
    parse_words(main.parse_arguments, words)


def check_evaluation_words(workspace: Workspace, words: list[str]) -> None:
    parse_words(lambda: main_eval.make_parser().read(), words)


def parse_words(parse: Callable[[], object], words: list[str]) -> None:
    with mock.patch.object(sys, "argv", ["command", *words]):
        try:
            parse()
        except SystemExit as end:  # --help
            assert end.code == 0


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


ODD_TENSORS: list[Callable[[Tensor], Any]] = [
    lambda tensor: tensor,
    *(lambda tensor, dtype=dtype: tensor.to(dtype) for dtype in (torch.float64, torch.bfloat16, torch.uint8)),
    *(
        lambda tensor, dtype=dtype: tensor.to(dtype)
        for dtype in (torch.bool, torch.complex64, torch.float8_e4m3fn)
    ),
    *(lambda tensor, value=value: torch.full_like(tensor, value) for value in (torch.nan, torch.inf, 1e38)),
    lambda tensor: tensor.reshape(-1, 1),
    lambda tensor: tensor.unsqueeze(0),
    lambda tensor: torch.zeros(0),
    lambda tensor: torch.zeros(1).expand(2**40),
    nn.Parameter,
    torch.Tensor.to_sparse,
    lambda tensor: torch.empty_like(tensor, device="meta"),
    lambda tensor: torch.nested.nested_tensor([tensor.flatten(), tensor.flatten()[:1]]),
    torch.Tensor.tolist,
    lambda tensor: None,
    lambda tensor: {"weight": tensor},
]


def check_odd_weights(workspace: Workspace, drawn: tuple[int, int, Any, str]) -> None:
    """Load weights of which one tensor is odd or has another name too; what is taken is what the file has."""
    which, odd, name, wrap = drawn
    state: dict[Any, Any] = dict(make_network().state_dict())
    key = sorted(state)[which]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds that torch is about to drop
        state[key] = ODD_TENSORS[odd](torch.ones(state[key].shape)) if odd else state[key]
        if name != "0":
            state[name] = state[key]
        torch.save(
            {"": state, "model": {"model": state, "epoch": 3}, "beside": {"model": 1, **state}}[wrap],
            workspace.folder / "a.pt",
        )
    model = make_network()
    load_weights(model, workspace.folder / "a.pt", "small")
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name].detach().to(tensor.dtype), tensor) and torch.isfinite(tensor).all()
        assert state[name].is_floating_point() == tensor.is_floating_point()


def check_checkpoint_part(workspace: Workspace, drawn: tuple[str, Any]) -> None:
    part, value = drawn
    path = workspace.runs / "long" / "teacher" / "checkpoint.pt"
    state = load(path)
    if part:
        state[part] = value
    save(path, state)
    check_outcome(workspace.train(*LONG, "--resume"))


def check_outcome(outcome: Outcome) -> None:
    """Raise UserError for a command that refused with one line."""
    if outcome.code == 2:
        outcome.check_line()
        raise UserError(outcome.err)
    assert outcome.code == 0, outcome


def check_image(workspace: Workspace, content: bytes) -> None:
    (workspace.folder / "image.png").write_bytes(content)
    (pixels,) = decode_files([workspace.folder / "image.png"], 8)
    assert pixels.shape == (1, 3, 8, 8) and pixels.dtype == np.uint8


def write_image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(90, dtype=np.uint8).reshape(6, 5, 3)).save(file, kind)
    return file.getvalue()


def write_finite(path: Path, values: Any) -> None:
    """Write a record with its digest, as a stranger may; no record can have NaN and infinity."""
    plain = json.loads(json.dumps(values), parse_constant=lambda name: 0)
    write_record(path, plain if isinstance(plain, dict) else {"value": plain})


RECORDS = ("teacher/result.json", "identity.json", "environment.json", "seed0/two_stage/stage1/result.json")


def check_record(workspace: Workspace, drawn: tuple[str, Any]) -> None:
    """Change a part of a record and sign it."""
    name, (number, value) = drawn
    record = read_record(workspace.run / name, "")
    *above, last = list_paths(record)[number % len(list_paths(record))]
    section = record
    for key in above:
        section = section[key]
    section[last] = section[last] if value == 0 else value
    write_finite(workspace.run / name, record)
    check_outcome(workspace.train("--phase", "all"))


def list_odd_arrays(array: np.ndarray) -> list[Any]:
    """List what may stand in an array's place, itself first."""
    kinds = ("f8", "f2", "i8", "u1", "?", "U3", "c8") if array.dtype.kind != "U" else ("U9",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of values that do not fit
        cast = [array.astype(kind) for kind in kinds]
    row = np.atleast_1d(array)
    return [
        *(array, *cast, row[:0], row[:1], row[..., :0], array[..., None], array.reshape(-1), array.T, row[::-1]),
        *(np.zeros(()), np.zeros((0, 3)), np.array("text"), np.array([{}], dtype=object)),
        *(np.full(array.shape, value) for value in (np.nan, np.inf, -1, 10**6, -(2**63))),
        np.zeros(array.shape, "M8[s]"),
    ]


def replace_array(path: Path, which: int, odd: int) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    names = sorted(name for name in arrays if "projections" not in name)  # of those the type alone is checked
    name = names[which % len(names)]
    found = list_odd_arrays(arrays[name])
    np.savez(path, **{**arrays, name: found[odd % len(found)]})


def check_predictions(workspace: Workspace, drawn: tuple[int, int, Any]) -> None:
    """Change an array and a part of the context of a recording."""
    path = workspace.run / "eval" / "predictions.npz"
    which, odd, value = drawn
    replace_array(path, which, odd)
    with np.load(path, allow_pickle=True) as file:
        arrays = dict(file)
    if value != 0:
        context = json.loads(str(arrays["context"]))
        context[sorted(context)[which % len(context)]] = value
        np.savez(path, **{**arrays, "context": np.array(json.dumps(context))})
    check_outcome(evaluate(str(path)))


def check_cues(workspace: Workspace, drawn: tuple[int, int, Any]) -> None:
    """Change an array and a word of a study's recording, and sign it."""
    (path,) = workspace.runs.glob("study/**/cues.npz")
    which, odd, value = drawn
    replace_array(path, which, odd)
    record = read_record(path.with_name("cues.json"), "")
    digest = next(key for key in record if key.endswith("sha256"))
    if value != 0:
        record[sorted(set(record) - {digest})[which % (len(record) - 1)]] = value
    write_finite(path.with_name("cues.json"), {**record, digest: hash_file(path)})
    check_outcome(evaluate(str(workspace.runs / "study")))


KEYS = [key for key, *_ in (*list_fields(), *list_options())]
WHICH = st.integers(0, 30)
ODD = st.just(0) | VALUES
LINES = st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=5)
TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Workspace, Any], None], float]] = {
    "config, bytes": (change_bytes(yaml.safe_dump(STUDY).encode()), check_config, 1),
    "config, values": (change_values(STUDY), check_values, 2),
    "--set": (st.tuples(st.sampled_from(["name", *KEYS]) | TEXT, st.just("a") | VALUES), check_override, 2),
    "words of main.py": (st.just(["--phase", "all"]) | LINES, check_words, 2),
    "words of main_eval.py": (LINES, check_evaluation_words, 2),
    "weights, tensors": (
        st.tuples(
            st.integers(0, 8),
            st.integers(0, len(ODD_TENSORS) - 1),
            st.just("0") | st.integers(0, 3) | st.sampled_from(["module.0.weight", "1.weight"]) | TEXT,
            st.sampled_from(["", "model", "beside"]),
        ),
        check_odd_weights,
        2,
    ),
    "checkpoint, parts": (
        st.tuples(st.sampled_from(["", "objective", "optimizer", "schedule", "history", "best", "part"]), VALUES),
        check_checkpoint_part,
        0.5,
    ),
    "images": (
        st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "tga"])
        .map(write_image)
        .flatmap(change_bytes),
        check_image,
        2,
    ),
    "records": (st.tuples(st.sampled_from(RECORDS), st.tuples(WHICH, ODD)), check_record, 0.5),
    "predictions.npz": (st.tuples(WHICH, WHICH, ODD), check_predictions, 0.5),
    "cues": (st.tuples(WHICH, WHICH, ODD), check_cues, 0.5),
}


@pytest.mark.parametrize("name", TARGETS)
def test_odd_input_is_refused_or_read_right(workspace, snapshot, name) -> None:
    strategy, check, share = TARGETS[name]
    results = []

    @settings(
        max_examples=max(2, int(TRIALS * share)),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def try_one(example):
        with capture_warnings(), warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                check(workspace, example)
                results.append("accepted")
            except (UserError, MachineError) as error:
                assert len(str(error)) > 10
                results.append("refused")
        restore_snapshot(workspace.folder, snapshot)

    try_one()
    assert "accepted" in results  # the first example is the original
