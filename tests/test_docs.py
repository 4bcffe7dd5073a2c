"""Of README.md, CONTRIBUTING.md, docs and experiments: own code, configs, commands, keys, paths, lengths."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import main
from settings.loss_options import fill_losses, list_options
from settings.moved import find_moved
from settings.reading import DEFAULT_CONFIG, list_fields, load_config
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "benchmarks" / "README.md", *sorted((ROOT / "experiments").rglob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
PLACEHOLDER = re.compile(r"[A-Z]{3}|\.\.\.|[\[|]")  # NAME, [options], one|other
OWN_CODE = re.compile(r"class: \w+:")  # a loss of the reader's own, which the run of it reads


def list_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def list_commands(text: str) -> list[list[str]]:
    """Return the words after main.py of every command that is shown in full."""
    lines = [line.partition("#")[0] for line in text.replace("\\\n", " ").splitlines()]
    shown = [line for line in lines if re.match(r" *(python|torchrun .*) main\.py ", line)]
    return [shlex.split(line.partition("main.py")[2]) for line in shown if not PLACEHOLDER.search(line)]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


CONFIGS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, block in enumerate(list_blocks(text, "yaml"), start=1)
    if not OWN_CODE.search(block)
]


@pytest.fixture(scope="module")
def own_loss(tiny_config, tmp_path_factory):
    """Train the README's network and loss on the tiny data; return the folder and what was printed."""
    folder = tmp_path_factory.mktemp("reader")
    section = TEXTS["README.md"].partition("## Your own images, network and loss\n")[2].partition("\n## ")[0]
    (code,), (config,) = list_blocks(section, "python"), list_blocks(section, "yaml")
    (command,) = list_commands(section)
    (folder / "mine.py").write_text(code, encoding="utf-8")
    (folder / "flowers.yaml").write_text(config, encoding="utf-8")
    tiny = yaml.safe_load(tiny_config.read_text(encoding="utf-8"))["data"]
    settings = [f"data.{key}={value}" for key, value in tiny.items()]
    settings += ["teacher.epochs=1", "teacher.cached_views=2", "training.epochs=2", "precision=float32"]
    settings += ["teacher.weights=null", "teacher.arch=resnet8", "teacher.batch_size=16", "training.batch_size=16"]
    words = [sys.executable, str(ROOT / "main.py"), *command, "--set", *settings]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "flowers" / "seed0", done.stdout


def test_own_loss_trains_in_a_stage(own_loss) -> None:
    folder, printed = own_loss
    (epoch,) = read_metrics(folder / "staged" / "stage1")
    assert re.search(r"^staged stage 1 1/1 .*  angle [\d.]+ ", printed, re.MULTILINE)
    assert 0 < epoch["angle"] < 2 and epoch["loss"] == pytest.approx(epoch["angle"])
    assert "cka_last" in epoch and "cka_penultimate" not in epoch  # flowers.yaml's option, not the default
    (later,) = read_metrics(folder / "staged" / "stage2")
    assert "angle" not in later and later["loss"] == pytest.approx(0.1 * later["ce"] + 0.9 * later["kl"])


def test_own_loss_trains_at_once(own_loss) -> None:
    folder, printed = own_loss
    epochs = read_metrics(folder / "at_once")
    assert re.search(r"^at_once 2/2 .*  angle [\d.]+ ", printed, re.MULTILINE) and len(epochs) == 2
    for epoch in epochs:
        assert epoch["loss"] == pytest.approx(epoch["angle"] + 0.1 * epoch["ce"] + 0.9 * epoch["kl"])
    assert epochs[1]["angle"] < epochs[0]["angle"]


@pytest.mark.parametrize("block", CONFIGS)
def test_configs_are_valid(block, tmp_path) -> None:
    path = tmp_path / "config.yaml"
    base = "" if "base" in yaml.safe_load(block) else f"base: {DEFAULT_CONFIG}\n"  # of a fragment
    path.write_text(base + block, encoding="utf-8")
    assert fill_losses(load_config(path)).stages


@pytest.mark.parametrize("name", TEXTS)
def test_commands_are_accepted(name, monkeypatch) -> None:
    for words in list_commands(TEXTS[name]):
        monkeypatch.setattr(sys, "argv", ["main.py", *words])
        arguments = main.parse_arguments()
        path = ROOT / arguments.config
        if path.is_file():  # not the reader's own
            fill_losses(load_config(path, arguments.set))


def test_readme_is_short() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 110 and max(map(len, lines)) <= 120
    assert len(TEXTS["README.md"].split()) <= 900


def test_docs_are_short() -> None:
    words = {name: len(text.split()) for name, text in TEXTS.items() if name.startswith("docs/")}
    assert {name: count for name, count in words.items() if count > 500} == {}
    assert sum(words.values()) + len(TEXTS["README.md"].split()) <= 9000


def test_architecture_names_what_is_there() -> None:
    rows = re.findall(r"^\| `(\w+)/`(?:, `\w+/`)* \| (.*) \|$", TEXTS["docs/architecture.md"], re.MULTILINE)
    named = {room: re.findall(r"`(\w+)/?`", files) for room, files in rows}
    assert len(sum(named.values(), [])) > 40
    for room, names in named.items():
        assert set(names) <= {path.stem for path in (ROOT / room).rglob("*")}, room


def test_readme_counts_the_shipped_methods() -> None:
    shipped = [yaml.safe_load(path.read_text()) for path in (ROOT / "configs" / "methods").glob("*.yaml")]
    at_once = sum(isinstance(method, list) and len(method) == 1 for method in shipped)
    assert f"{at_once} methods at once and {len(shipped) - at_once} in stages" in TEXTS["README.md"]


def test_examples_are_found() -> None:
    assert len(CONFIGS) >= 6 and len(list_commands(TEXTS["README.md"])) >= 6


@pytest.mark.parametrize("name", TEXTS)
def test_keys_are_options(name) -> None:
    options = {key for key, *_ in [*list_fields(), *list_options()]}
    sections = {key.partition(".")[0] for key in options}
    for key in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)[`=:]", TEXTS[name]):
        if not key.endswith((".py", ".yaml", ".md")):
            assert find_moved(key) is None, f"{key} is now {find_moved(key)}"
            known = any(f"{option}.".startswith(f"{key}.") for option in options)
            assert known or key.partition(".")[0] not in sections - {"methods"}, key


@pytest.mark.parametrize("page", PAGES, ids=list(TEXTS))
def test_paths_exist(page) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "|".join(path.parent.name for path in ROOT.glob("*/*.*") if path.parent.name.isidentifier())
    named = re.findall(rf"(?<![\w/])(?:{folders})/[\w/*.-]+\.(?:py|yaml|md|json|sh|png)\b", text)
    missing = [path for path in named if not PLACEHOLDER.search(path) and not list(ROOT.glob(path))]
    linked = [link.partition("#")[0] for link in re.findall(r"\]\(([^):]+)\)", text)]
    assert missing + [path for path in linked if not (page.parent / path).exists()] == []
