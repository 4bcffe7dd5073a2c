"""Weights, arrays and YAML made to write a file as they are loaded, given wherever the program reads such files.

python -m tests.faults.crafted    # the table: what was given where, exit code, line, whether the file appeared
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from dataset.identity import array_digest
from models.whole import file_hash
from tests.faults.small_place import Place, Said, evaluate
from training.run.record_file import read_record, write_record


class Writes:
    """Pickled, it opens a file for writing where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@dataclass(frozen=True)
class Attempt:
    """A crafted file in its place and the command that would load it."""

    what: str
    where: str
    said: Said
    wrote: bool


def weights(owned: Path) -> dict[str, bytes]:
    """Files of weights that write, by kind."""
    content = {"fc.weight": torch.ones(2), "model": Writes(owned)}
    found = {}
    for name, zipped in (("weights, zip", True), ("weights, old format", False)):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        found[name] = file.getvalue()
    return {**found, "weights, a pickle": pickle.dumps(content)}


def arrays(owned: Path) -> bytes:
    """A .npy file of an object that writes."""
    file = io.BytesIO()
    np.save(file, np.array([Writes(owned)], dtype=object), allow_pickle=True)
    return file.getvalue()


def archive(owned: Path, names: list[str]) -> bytes:
    """A .npz file of such arrays, and of one whose name leads out of it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as entries:
        for name in [*names, f"../../../../../../../..{owned}"]:
            entries.writestr(f"{name}.npy" if name in names else name, arrays(owned))
    return file.getvalue()


def texts(owned: Path) -> dict[str, str]:
    """YAML that writes, by tag."""
    return {
        "YAML, apply": f"name: !!python/object/apply:builtins.open ['{owned}', w]",
        "YAML, new": f"name: !!python/object/new:builtins.open ['{owned}', w]",
        "YAML, key": f"? !!python/object/apply:builtins.open ['{owned}', w]\n: a",
        "YAML, merged": f"name: &a !!python/object/apply:builtins.open ['{owned}', w]\ndata: {{<<: *a}}",
    }


def controls(owned: Path) -> list[str]:
    """Which of the crafted files write where they are loaded without care; all of them should."""
    careless: dict[str, Callable[[], object]] = {
        name: lambda content=content: torch.load(io.BytesIO(content), weights_only=False)
        for name, content in weights(owned).items()
    }
    careless["weights, a pickle"] = lambda: pickle.loads(weights(owned)["weights, a pickle"])
    careless["array"] = lambda: np.load(io.BytesIO(arrays(owned)), allow_pickle=True)
    careless |= {name: lambda text=text: yaml.unsafe_load(text) for name, text in texts(owned).items()}
    wrote = []
    for name, load in careless.items():
        with suppress(ValueError, TypeError, yaml.YAMLError):  # after it wrote
            load()
        wrote += [name] if owned.exists() else []
        owned.unlink(missing_ok=True)
    missing = careless.keys() - set(wrote)
    if missing:
        raise AssertionError(f"these write nothing even without care: {sorted(missing)}")
    return wrote


class Places:
    """A finished run, an interrupted one, a study and their caches, copied for each attempt."""

    def __init__(self, folder: Path) -> None:
        self.whole, self.place, self.owned = folder / "whole", Place(folder / "place"), folder / "owned"
        self.place.folder.mkdir()
        self.place.make()
        assert self.place.train("--phase", "all").code == 0
        assert self.place.train("--phase", "study", "--set", "name=study", "shortcut.cue=patch").code == 0
        assert evaluate(str(self.place.run)).code == 0
        shutil.copytree(self.place.folder, self.whole)

    def attempts(self) -> list[Attempt]:
        found = []
        for name, content in weights(self.owned).items():
            found += [self._try(name, where, content, to) for where, to in self._weights().items()]
        npy, npz = arrays(self.owned), archive(self.owned, ["labels", "meta", "context", "cues", "predictions"])
        found += [self._try("array", where, npy, to) for where, to in self._arrays().items()]
        found += [self._try("npz", where, npz, to) for where, to in self._archives().items()]
        for name, text in texts(self.owned).items():
            found += [self._try(name, where, text.encode(), to) for where, to in self._texts(text).items()]
        return found

    def _try(self, what: str, where: str, content: bytes, use: Callable[[bytes], Said]) -> Attempt:
        shutil.rmtree(self.place.folder)
        shutil.copytree(self.whole, self.place.folder)  # keeps times: decoded images are known by those
        said = use(content)
        wrote = self.owned.exists()
        self.owned.unlink(missing_ok=True)
        return Attempt(what, where, said, wrote)

    def _weights(self) -> dict[str, Callable[[bytes], Said]]:
        place, run = self.place, self.place.run
        given = place.folder / "given.pt"

        def as_setting(key: str) -> Callable[[bytes], Said]:
            phase = "teacher" if key == "teacher.init" else "crd"
            words = ("--phase", phase, "--set", "name=other", f"{key}={given}")
            return lambda content: [given.write_bytes(content), place.train(*words)][1]

        def compared(content: bytes) -> Said:
            given.write_bytes(content)
            files = ("--teacher", str(run / "teacher" / "model.pt"), "--student", str(given))
            return evaluate(*files, "--config", str(place.config), "--output-dir", str(place.runs))

        def resumed(content: bytes) -> Said:
            (run / "seed0" / "scratch" / "result.json").unlink()
            (run / "seed0" / "scratch" / "checkpoint.pt").write_bytes(content)
            return place.train("--phase", "baselines", "--resume")

        return {
            "teacher.checkpoint": as_setting("teacher.checkpoint"),
            "teacher.init": as_setting("teacher.init"),
            "--student": compared,
            "a run's checkpoint.pt": resumed,
            "a run's model.pt, signed": lambda content: self._signed(run / "teacher", "model.pt", content),
            "a run's projections.pt, signed": lambda c: self._signed(
                run / "seed0" / "two_stage" / "stage1", "projections.pt", c
            ),
        }

    def _signed(self, job: Path, name: str, content: bytes) -> Said:
        """In a run whose records were made to fit."""
        (job / name).write_bytes(content)
        result = read_record(job / "result.json", "")
        digest = file_hash(job / name)
        if name == "model.pt":
            result["model_sha256"] = digest
        else:
            result["files"][name] = digest
        write_record(job / "result.json", result)
        return evaluate(str(self.place.run))

    def _arrays(self) -> dict[str, Callable[[bytes], Said]]:
        def view(content: bytes) -> Said:
            path = next(self.place.cache.glob("teacher-*/view0.npy"))
            path.write_bytes(content)
            path.with_suffix(".sha256").write_text(file_hash(path) + "\n")
            return self.place.train("--phase", "crd", "--fresh")

        def decoded(content: bytes) -> Said:
            path = next(self.place.cache.glob("folder-*/pixels.npy"))
            path.write_bytes(content)
            meta = json.loads((path.parent / "meta.json").read_text(encoding="utf-8"))
            meta["digests"]["train_pixels"] = array_digest(np.array([1]))
            (path.parent / "meta.json").write_text(json.dumps(meta))
            return self.place.train("--phase", "all")

        return {"the teacher's outputs, signed": view, "decoded images": decoded}

    def _archives(self) -> dict[str, Callable[[bytes], Said]]:
        recorded = self.place.run / "eval" / "predictions.npz"
        answers = self.place.runs / "study" / "seed0" / "seed0"

        def alone(content: bytes) -> Said:
            recorded.write_bytes(content)
            return evaluate(str(recorded))

        def of_run(content: bytes) -> Said:
            recorded.write_bytes(content)
            return evaluate(str(self.place.run))

        def of_study(content: bytes) -> Said:
            (answers / "cues.npz").write_bytes(content)
            about = read_record(answers / "cues.json", "")
            write_record(answers / "cues.json", {**about, "cues_npz_sha256": file_hash(answers / "cues.npz")})
            return evaluate(str(self.place.runs / "study"))

        return {
            "predictions.npz": alone,
            "a run's predictions.npz": of_run,
            "a study's cues.npz, signed": of_study,
        }

    def _texts(self, text: str) -> dict[str, Callable[[bytes], Said]]:
        place, own = self.place, self.place.folder / "own.yaml"

        def config(content: bytes) -> Said:
            place.config.write_bytes(content)
            return place.train("--phase", "all")

        def base(content: bytes) -> Said:
            own.write_bytes(content)
            place.config.write_text("base: own.yaml", encoding="utf-8")
            return place.train("--phase", "all")

        def of_run(content: bytes) -> Said:
            (place.run / "config.yaml").write_bytes(content)
            return evaluate(str(place.run))

        uses = {"--config": config, "base": base, "a run's config.yaml": of_run}
        key, _, value = text.partition(": ")
        words = ("--phase", "all", "--set", f"name={value.splitlines()[0]}")
        return {**uses, "--set": lambda _: place.train(*words)} if key == "name" else uses


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"without care, {len(controls(folder / 'owned'))} crafted files write a file as they are loaded")
        found = Places(folder).attempts()
        for one in found:
            line = (one.said.err.strip() or one.said.out.strip()).replace(name, "{}").splitlines()[0]
            print(
                f"{one.what:20} as {one.where:32} exit code {one.said.code}, file: {'YES' if one.wrote else 'no'}"
            )
            print(f"    {line[:160]}")
    wrote = sum(one.wrote for one in found)
    print(f"{len(found)} attempts, {wrote} wrote a file")
    sys.exit(1 if wrote else 0)


if __name__ == "__main__":
    run()
