"""Files that write another file where they are loaded without care are refused, and nothing is written."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dataset.identity import compute_array_digest
from models.whole import hash_file
from tests.faults.harness import Outcome, Workspace, evaluate
from training.run.record_file import read_record, write_record

Use = Callable[[Workspace, bytes], Outcome]  # puts a file in its place and runs the command that reads it
NAMES = ("labels", "meta", "context", "cues", "predictions")  # of arrays in recordings


class Writer:
    """Opens a file for writing where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def make_weights(target: Path, zipped: bool) -> bytes:
    file = io.BytesIO()
    content = {"fc.weight": torch.ones(2), "model": Writer(target)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def make_array(target: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Writer(target)], dtype=object), allow_pickle=True)
    return file.getvalue()


def make_archive(target: Path) -> bytes:
    """Make an .npz of such arrays, and of one whose name leads out of it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as entries:
        for name in (*(f"{name}.npy" for name in NAMES), f"../../../../../../../..{target}"):
            entries.writestr(name, make_array(target))
    return file.getvalue()


def make_yaml(target: Path, text: str) -> bytes:
    return text.replace("CALL", f"!!python/object/apply:builtins.open ['{target}', w]").encode()


CONTENT: dict[
    str, tuple[Callable[[Path], bytes], Callable[[bytes], object]]
] = {  # and how to load it without care
    "weights": (lambda target: make_weights(target, True), lambda content: load_carelessly(content)),
    "old weights": (lambda target: make_weights(target, False), lambda content: load_carelessly(content)),
    "pickle": (lambda target: pickle.dumps({"model": Writer(target)}), pickle.loads),
    "array": (make_array, lambda content: np.load(io.BytesIO(content), allow_pickle=True)),
    "archive": (make_archive, lambda content: np.load(io.BytesIO(content), allow_pickle=True)["labels"]),
    "YAML value": (lambda target: make_yaml(target, "name: CALL"), yaml.unsafe_load),
    "YAML key": (lambda target: make_yaml(target, "? CALL\n: a"), yaml.unsafe_load),
    "YAML merge": (lambda target: make_yaml(target, "name: &a CALL\ndata: {<<: *a}"), yaml.unsafe_load),
}


def load_carelessly(content: bytes) -> object:
    return torch.load(io.BytesIO(content), weights_only=False)


def train_with(key: str, phase: str) -> Use:
    """Return a use as the file that a setting names."""

    def use(workspace: Workspace, content: bytes) -> Outcome:
        (workspace.folder / "given.pt").write_bytes(content)
        return workspace.train("--phase", phase, "--set", "name=other", f"{key}={workspace.folder / 'given.pt'}")

    return use


def compare_student(workspace: Workspace, content: bytes) -> Outcome:
    (workspace.folder / "given.pt").write_bytes(content)
    files = ("--teacher", workspace.run / "teacher" / "model.pt", "--student", workspace.folder / "given.pt")
    given = ("--config", workspace.config, "--output-dir", workspace.runs)
    return evaluate(*map(str, (*files, *given)))


def resume_training(workspace: Workspace, content: bytes) -> Outcome:
    job = workspace.run / "seed0" / "scratch"
    (job / "result.json").unlink()
    (job / "checkpoint.pt").write_bytes(content)
    return workspace.train("--phase", "baselines", "--resume")


def evaluate_signed(job: str, name: str) -> Use:
    """Return a use in a run whose record has the digest of the file."""

    def use(workspace: Workspace, content: bytes) -> Outcome:
        folder = workspace.run / job
        (folder / name).write_bytes(content)
        result = read_record(folder / "result.json", "")
        digest = hash_file(folder / name)
        if name == "model.pt":
            result["model_sha256"] = digest
        else:
            result["files"][name] = digest
        write_record(folder / "result.json", result)
        return evaluate(str(workspace.run))

    return use


def read_cached_outputs(workspace: Workspace, content: bytes) -> Outcome:
    path = next(workspace.cache.glob("teacher-*/view0.npy"))
    path.write_bytes(content)
    path.with_suffix(".sha256").write_text(hash_file(path) + "\n")
    return workspace.train("--phase", "crd", "--fresh")


def read_decoded_images(workspace: Workspace, content: bytes) -> Outcome:
    path = next(workspace.cache.glob("folder-*/pixels.npy"))
    path.write_bytes(content)
    meta = json.loads((path.parent / "meta.json").read_text(encoding="utf-8"))
    meta["digests"]["train_pixels"] = compute_array_digest(np.array([1]))
    (path.parent / "meta.json").write_text(json.dumps(meta))
    return workspace.train("--phase", "all")


def report_recording(workspace: Workspace, content: bytes) -> Outcome:
    (workspace.run / "eval" / "predictions.npz").write_bytes(content)
    return evaluate(str(workspace.run / "eval" / "predictions.npz"))


def evaluate_run(workspace: Workspace, content: bytes) -> Outcome:
    (workspace.run / "eval" / "predictions.npz").write_bytes(content)
    return evaluate(str(workspace.run))


def report_study(workspace: Workspace, content: bytes) -> Outcome:
    (cues,) = workspace.runs.glob("study/**/cues.npz")
    cues.write_bytes(content)
    record = cues.with_name("cues.json")
    write_record(record, {**read_record(record, ""), "cues_npz_sha256": hash_file(cues)})
    return evaluate(str(workspace.runs / "study"))


def train_config(workspace: Workspace, content: bytes) -> Outcome:
    workspace.config.write_bytes(content)
    return workspace.train("--phase", "all")


def train_base(workspace: Workspace, content: bytes) -> Outcome:
    (workspace.folder / "own.yaml").write_bytes(content)
    return train_config(workspace, b"base: own.yaml")


def evaluate_config(workspace: Workspace, content: bytes) -> Outcome:
    (workspace.run / "config.yaml").write_bytes(content)
    return evaluate(str(workspace.run))


def train_override(workspace: Workspace, content: bytes) -> Outcome:
    return workspace.train("--phase", "all", "--set", content.decode().replace(": ", "=", 1))


WEIGHTS: dict[str, Use] = {
    "teacher.checkpoint": train_with("teacher.checkpoint", "crd"),
    "teacher.init": train_with("teacher.init", "teacher"),
    "--student": compare_student,
    "checkpoint.pt": resume_training,
    "model.pt": evaluate_signed("teacher", "model.pt"),
    "projections.pt": evaluate_signed("seed0/two_stage/stage1", "projections.pt"),
}
USES: dict[tuple[str, ...], dict[str, Use]] = {
    ("weights",): WEIGHTS,
    ("old weights", "pickle"): {"teacher.checkpoint": WEIGHTS["teacher.checkpoint"]},
    ("array",): {"cached outputs": read_cached_outputs, "decoded images": read_decoded_images},
    ("archive",): {"a recording": report_recording, "a run's recording": evaluate_run, "a study's": report_study},
    ("YAML value",): {"base": train_base, "a run's config": evaluate_config, "--set": train_override},
    ("YAML value", "YAML key", "YAML merge"): {"--config": train_config},
}
CASES = [
    pytest.param(name, use, id=f"{name} as {place}")
    for names, uses in USES.items()
    for name in names
    for place, use in uses.items()
]
REPAIRED = (evaluate_run, read_cached_outputs, read_decoded_images)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files left open
@pytest.mark.parametrize("name", CONTENT)
def test_crafted_files_write_without_care(tmp_path, name) -> None:
    make, load = CONTENT[name]
    with suppress(ValueError, TypeError, yaml.YAMLError):  # after it wrote
        load(make(tmp_path / "written"))
    assert (tmp_path / "written").exists()


@pytest.mark.parametrize(("name", "use"), CASES)
def test_crafted_files_write_nothing_here(workspace, tmp_path, name, use) -> None:
    make, _ = CONTENT[name]
    done = use(workspace, make(tmp_path / "written"))
    assert not (tmp_path / "written").exists()
    if use in REPAIRED:
        assert done.code == 0 and done.err.count("\n") == 1, done
    else:
        done.check_line()


OWN = """
from pathlib import Path
from models.zoo import build_model
from losses.loss import Loss
Path(__file__).with_name("imported").touch()
def tiny(num_classes): return build_model("resnet8", num_classes)
class Own(Loss):
    needs_logits = True
    def forward(self, student, teacher, samples): return student.logits.logsumexp(1).mean()
"""


def write_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module of the user's own that shows an import, under a name of its own; return the name."""
    monkeypatch.syspath_prepend(str(folder))
    name = f"own_{abs(hash(folder))}"
    (folder / f"{name}.py").write_text(OWN, encoding="utf-8")
    return name


@pytest.mark.parametrize(
    "words",
    [
        ("RUN",),
        ("RUN", "--export", "OUT", "--model", "scratch"),
        ("--compare", "RUN", "OTHER"),
        ("RUN", "--quick"),
    ],
)
@pytest.mark.parametrize("part", ["student", "losses"])
def test_code_of_a_strangers_run_needs_permission(workspace, tmp_path, monkeypatch, words, part) -> None:
    name = write_own(tmp_path, monkeypatch)
    shutil.copytree(workspace.run, workspace.runs / "other")
    values = yaml.safe_load((workspace.run / "config.yaml").read_text(encoding="utf-8"))
    if part == "student":
        values["student"]["arch"] = f"{name}:tiny"
    else:
        values["losses"]["mine"] = {"class": f"{name}:Own"}
        values["methods"]["scratch"] = [{"losses": {"mine": 1}, "epochs": 1}]
    (workspace.run / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    shutil.rmtree(workspace.run / "eval")
    places = {"RUN": str(workspace.run), "OTHER": str(workspace.runs / "other"), "OUT": str(tmp_path / "out")}
    given = [places.get(word, word) for word in words]
    done = evaluate(*given)
    done.check_line(rf"config.yaml: .*{name}:\w+ is code .* allow it with --allow-code")
    assert not (tmp_path / "imported").exists()
    allowed = evaluate(*given, "--allow-code")
    assert allowed.code == 0 and (tmp_path / "imported").exists(), allowed


def test_code_in_the_users_own_config_needs_no_permission(workspace, tmp_path, monkeypatch) -> None:
    name = write_own(tmp_path, monkeypatch)
    words = ("--set", "name=own", f"student.arch={name}:tiny", "methods={scratch: {epochs: 1}}")
    for _ in range(2):  # and again, on what is there
        done = workspace.train("--phase", "all", "--resume", *words)
        assert done.code == 0 and "own --allow-code\n" in done.out, done
    named = tmp_path / "named.yaml"
    named.write_text(f"base: {workspace.config}\nname: own\nstudent: {{arch: '{name}:tiny'}}\n", encoding="utf-8")
    assert evaluate("--config", str(named), "--output-dir", str(workspace.runs), "--quick").code == 0
    evaluate(str(workspace.runs / "own"), "--quick").check_line("--allow-code")
