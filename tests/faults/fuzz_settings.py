"""Fuzzing what a person types: YAML, --set, command lines, grids, and the CSV of cues."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from hypothesis import strategies as st

import main
import main_eval
from dataset.cues.cue_file import own_cues
from dataset.files.decoded_cache import Images
from dataset.sources import Source
from settings.loss_options import complete_losses, list_options, list_stages, make_loss
from settings.reading import list_fields, load_config, to_yaml
from settings.schema import Config
from settings.stages import Stage
from study.grid import list_points, list_runs
from tests.faults.fuzz import Result, Target
from tests.faults.mutations import CHANGES, TEXT, VALUES, WORDS, altered, changed, same
from tests.faults.small_place import Place
from training.run.run_folder import RunFolder, write_config

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
        "later": {"base": "own", "stage2": {"losses": {"kl": False, "reuse": None}}},
        "at_once": {"twin_of": "two_stage", "upweight_errors_of": "kd"},
        "scratch": None,
    },
    "study": {
        "grid": [{"losses.kl.temperature": [2.0, 4.0], "shortcut.conflicting": [0.1]}],
        "hypotheses": {
            "H1": {
                "measure": "clean",
                "first": "kd",
                "second": "two_stage",
                "where": {"losses.kl.temperature": 2.0},
            }
        },
    },
}
OPTIONS = ("--phase", "--config", "--set", "--seeds", "--output-dir", "--device", "--resume", "--fresh", "--shard")
IN_METHODS = [
    *(f"methods.kd.{key}" for key in Stage.model_fields),
    *(f"methods.two_stage.stage2.{key}" for key in Stage.model_fields),
    *("methods", "methods.kd", "methods.kd.losses.kl", "methods.kd.losses.kl.temperature", "methods.mine.base"),
]
EVAL_OPTIONS = ("--teacher", "--student", "--counts", "--compare", "--export", "--model", "--seed", "--json")


def targets(place: Place) -> list[Target]:
    folder = place.folder / "settings"
    folder.mkdir()
    path, text = folder / "a.yaml", yaml.safe_dump(STUDY).encode()
    fields = [key for key, *_ in (*list_fields(), *list_options())]
    keys = st.sampled_from(fields) | st.sampled_from(IN_METHODS) | TEXT
    words = st.tuples(keys, WORDS | VALUES | st.text(max_size=12))
    sample = st.sampled_from([*OPTIONS, *EVAL_OPTIONS, "study", "all", "1/2", "0", "1", "a=b"]) | st.text(
        max_size=6
    )
    lines = st.text(alphabet="file,cue\n\"'0a/.png\r\0é", max_size=60)
    return [
        Target("config, bytes", CHANGES.map(partial(changed, text)), partial(_config, path)),
        Target("config, values", altered(STUDY), partial(_config_of, path)),
        Target(
            "config, any bytes",
            st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
            partial(_config, path),
        ),
        Target("config of a run, bytes", CHANGES, partial(_written, folder)),
        Target("--set", words, partial(_set, path.with_name("empty.yaml"))),
        Target("grid of a study", altered(STUDY["study"]), partial(_grid, path)),
        Target("main.py's words", st.lists(sample, max_size=5), _main_words),
        Target("main_eval.py's words", st.lists(sample, max_size=5), _eval_words),
        Target("CSV of cues", lines.map(str.encode) | CHANGES.map(partial(changed, CUES)), partial(_cues, folder)),
    ]


def _config(path: Path, content: bytes) -> Result:
    """A config that is read is read again from what it says of itself."""
    path.write_bytes(content)
    return _reread(load_config(path), path)


def _reread(config: Config, path: Path) -> Result:
    """With options of losses left out, and with all of them said, which is the same to every stage."""
    complete = complete_losses(config)
    for one in (config, complete):
        path.write_text(to_yaml(one), encoding="utf-8")
        again = load_config(path)
        assert again == one and same(again.resolved(), one.resolved())
    for (key, stage), (again, other) in zip(list_stages(config), list_stages(complete), strict=True):
        assert key == again and stage.losses.keys() == other.losses.keys()
        for name, use in stage.losses.items():
            one, two = (
                vars(make_loss(key, name, part.options, own.losses))
                for part, own in ((use, config), (other.losses[name], complete))
            )
            assert {n: v for n, v in one.items() if n[0] != "_"} == {n: v for n, v in two.items() if n[0] != "_"}
    return "right"


def _config_of(path: Path, values: Any) -> Result:
    """A value that is taken is the one that was given, a number in quotes as the number."""
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    config = load_config(path)
    found = _reread(config, path)
    methods = (values or {}).pop("methods", None)
    _see_taken(values or {}, config.model_dump(mode="json"))
    _see_methods(methods, config)
    return found


def _see_taken(given: Any, taken: Any) -> None:
    for key, value in given.items() if isinstance(given, dict) else ():
        if key == "base":
            continue
        if isinstance(value, dict) and isinstance(taken[key], dict):
            _see_taken(value, taken[key])
        else:
            assert same(value, taken[key]) or str(value) == str(taken[key]) or _as_number(value, taken[key]), key


def _see_methods(given: Any, config: Config) -> None:
    """What a list of stages says is what its stages are."""
    for name, method in given.items() if isinstance(given, dict) else ():
        for number, stage in enumerate(method if isinstance(method, list) else ()):
            taken = config.stages[name][number].model_dump(mode="json")
            for loss, use in stage.pop("losses", {}).items():
                weight = use if isinstance(use, int | float) else 1.0 if use is None else use.get("weight", 1.0)
                assert use is False or taken["losses"][loss]["weight"] == float(weight), loss
            share = stage.pop("epochs", None)
            assert share is None or 0 < float(share) < 1 or float(share) == taken["epochs"]
            _see_taken({key: value for key, value in stage.items() if value is not None}, taken)


def _as_number(value: Any, taken: Any) -> bool:
    return isinstance(value, str) and isinstance(taken, int | float) and float(value) == taken


def _written(folder: Path, changes: Any) -> Result:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    config = Config()
    write_config(run / "config.yaml", config)
    path = run / "config.yaml"
    path.write_bytes(changed(path.read_bytes(), changes))
    signed = path.read_bytes().startswith(b"# digest ")
    found = RunFolder(run).config()
    assert found == config or not signed  # the sign itself is what changed
    return "right"


def _set(empty: Path, given: tuple[str, Any]) -> Result:
    key, value = given
    empty.write_text("", encoding="utf-8")
    word = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).strip()
    config = load_config(empty, [f"{key}={word}"])
    return _reread(config, empty.with_name("reread.yaml"))


def _grid(path: Path, study: Any) -> Result:
    path.write_text(yaml.safe_dump({**STUDY, "study": study}, allow_unicode=True), encoding="utf-8")
    config = load_config(path)
    points, runs = list_points(config.study.grid), list_runs(config)
    assert len({run.name for run in runs}) == len(runs) == len(points) * len(config.seeds)
    return "right"


def _main_words(words: list[str]) -> Result:
    with mock.patch.object(sys, "argv", ["main.py", *words]):
        try:
            main.parse_arguments()
        except SystemExit as end:  # --help
            assert end.code == 0
    return "right"


def _eval_words(words: list[str]) -> Result:
    with mock.patch.object(sys, "argv", ["main_eval.py", *words]):
        try:
            arguments, given = main_eval.make_parser().read()
        except SystemExit as end:  # --help
            assert end.code == 0
            return "right"
    main_eval.reject_unused_args(arguments, given, main_eval.command_mode(arguments))
    return "right"


CUES = b"file,cue\na/0.png,red\na/1.png,blue\nb/0.png,red\n"


def _cues(folder: Path, content: bytes) -> Result:
    path = folder / "cues.csv"
    path.write_bytes(content)
    names = [np.array([name]) for name in ("a/0.png", "a/1.png", "b/0.png")]
    parts = [Images(np.zeros((1, 3, 1, 1), np.uint8), np.zeros(1, np.int64), name) for name in names]
    source = Source(parts[0], parts[1], parts[2], ["a", "b"])
    cues, count = own_cues(path, source)
    assert count >= 2 and all(0 <= int(part) < count for part in cues)
    return "right"
