"""Flips one bit in every kind of file that is read again: found, or harmless, and never another result.

python -m tests.faults.flips [--trials 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from dataset.sources import load_source
from diagnostics.evaluation import recording_file
from diagnostics.evaluation.evaluated_models import subjects_of_run
from diagnostics.plain import to_plain
from diagnostics.shortcut import recording_file as cue_file
from errors import MachineError, UserError
from files import locked
from models.checkpoint import load_weights, weights_hash
from tests.diagnostics.report.test_folder import network, recordings
from tests.faults.fuzz_recordings import _cued
from tests.faults.small_place import Place, cache_outputs, silent
from training import teacher_cache
from training.experiment import Experiment
from training.run.environment import read_environment
from training.run.identity import check_identity, write_identity
from training.run.job_folder import JobFolder
from training.run.run_folder import RunFolder

LONG = ("--phase", "teacher", "--set", "name=long", "teacher.epochs=3")


@dataclass(frozen=True)
class Kind:
    """Files that are read in the same way, and what is made of them: equal where the result is the same."""

    name: str
    files: list[Path]
    use: Callable[[], Any]


@dataclass
class Count:
    """What became of the trials of a kind."""

    found: int = 0
    harmless: int = 0
    other: int = 0


def flip(path: Path, draw: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


class Files:
    """A place with a finished run, an interrupted one, caches and recordings, and who reads each file."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder).make()
        assert self.place.train("--phase", "all").code == 0
        self._interrupt()
        self.experiment = self.place.experiment()
        self.job = self.place.folder / "runs" / "long" / "teacher"
        (folder / "cues.csv").write_text(self._cue_rows(), encoding="utf-8")
        self._write_recordings(folder / "recordings")
        write_identity(folder / "recordings", self._cued().data)
        self.network = self.place.experiment().new_student(0).requires_grad_(False)

    def _interrupt(self) -> None:
        with mock.patch.object(JobFolder, "finish", side_effect=KeyboardInterrupt):
            assert self.place.train(*LONG).code == 130

    def _cue_rows(self) -> str:
        names = sorted((self.place.folder / "images").rglob("*.png"))
        rows = [f"{p.relative_to(self.place.folder / 'images')},{'ab'[n % 2]}" for n, p in enumerate(names)]
        return "\n".join(["file,cue", *rows]) + "\n"

    def _cued(self) -> Experiment:
        return self.place.experiment("shortcut.cue=file", f"shortcut.file={self.place.folder / 'cues.csv'}")

    def _write_recordings(self, folder: Path) -> None:
        folder.mkdir()
        models = [network(name, right=right) for name, right in (("teacher", 0.9), ("kd", 0.6))]
        with open(folder / "predictions.npz", "wb") as file:
            recording_file.write(recordings(models), file)
        cue_file.write(_cued(), folder)
        with locked(folder / ".lock"):
            content = (folder / ".lock").read_bytes()
        (folder / ".lock").write_bytes(content)

    def kinds(self) -> list[Kind]:
        run, folder = self.place.run, self.place.folder
        (views,) = self.place.cache.glob("teacher-*")
        self.views, self.whole = views, {path.name: path.read_bytes() for path in views.iterdir()}
        decoded = [path for path in self.place.cache.glob("folder-*/*") if path.is_file()]
        made = {name: sorted(run.rglob(name)) for name in ("model.pt", "result.json", "metrics.jsonl")}
        return [
            *(Kind(name, files, self._run) for name, files in made.items()),
            Kind("projections.pt", list(run.rglob("projections.pt")), self._run),
            *(
                Kind(name, [run / name], self._run)
                for name in ("config.yaml", "identity.json", "environment.json")
            ),
            Kind("given weights", [run / "teacher" / "model.pt"], self._given),
            *(Kind(n, [self.job / n], self._resume) for n in ("checkpoint.pt", "checkpoint.previous.pt")),
            Kind("decoded images", [path for path in decoded if path.suffix == ".npy"], self._decoded),
            Kind("decoded images, meta", [path for path in decoded if path.suffix == ".json"], self._decoded),
            *(Kind(f"teacher's {name}", [views / name], self._views) for name in self.whole),
            Kind("predictions.npz", [folder / "recordings" / "predictions.npz"], self._predictions),
            *(Kind(name, [folder / "recordings" / name], self._cues) for name in ("cues.npz", "cues.json")),
            Kind("images", sorted((folder / "images").rglob("*.png")), self._run),
            Kind("CSV of cues", [folder / "cues.csv"], self._labelled),
            Kind(".lock", [folder / "recordings" / ".lock"], self._lock),
        ]

    def _run(self) -> Any:
        experiment = self.place.experiment()
        folder = RunFolder(self.place.run)
        check_identity(folder.path, experiment.data)
        subjects = subjects_of_run(experiment)
        told = [(one.name, one.history, one.stage1, weights_hash(one.build())) for one in subjects]
        maps = [str(one.projections) for one in subjects]
        results = [folder.job(job).result() for job in folder.present()]
        told_of = read_environment(folder.path)
        return folder.config(), told, maps, results, told_of if told_of is not None else "left out, with a word"

    def _given(self) -> Any:
        load_weights(self.network, self.place.run / "teacher" / "model.pt", "resnet8")
        return weights_hash(self.network)

    def _resume(self) -> Any:
        said = self.place.train(*LONG, "--resume")
        if said.code == 2:
            raise UserError(said.err)
        assert said.code == 0, said.err
        if said.err:
            print(said.err, file=sys.stderr)
        return [(self.job / name).read_bytes() for name in ("model.pt", "metrics.jsonl", "result.json")]

    def _decoded(self) -> Any:
        source = load_source(self.experiment.config.data)
        return source.identity, source.classes, sorted(p.name for p in self.place.cache.glob("folder-*/*"))

    def _views(self) -> Any:
        teacher_cache._has_digest.cache_clear()
        experiment = self.place.experiment()
        cache_outputs(experiment, experiment.trained(experiment.config.teacher, experiment.folder.teacher))
        return {path.name: path.read_bytes() for path in self.views.iterdir()} == self.whole

    def _predictions(self) -> Any:
        try:
            found = recording_file.read(self.place.folder / "recordings" / "predictions.npz")
        except ValueError as error:
            raise UserError(str(error)) from None
        arrays = [array.tobytes() for model in found.models for array in (model.logits, model.last, model.layers)]
        return to_plain(found.context), [to_plain(model.meta) for model in found.models], arrays

    def _cues(self) -> Any:
        found = cue_file.read(self.place.folder / "recordings")
        arrays = [
            getattr(found, name).tobytes() for name in ("labels", "cues", "classes_cue", "predictions", "clean")
        ]
        return to_plain(found.about), to_plain(found.models), arrays

    def _labelled(self) -> Any:
        data = self._cued().data
        check_identity(self.place.folder / "recordings", data)
        return data.fingerprint

    def _lock(self) -> Any:
        path = self.place.folder / "recordings" / ".lock"
        with locked(path, strict=True) as other:
            if other is not None:
                raise UserError(f"in use by {other}")
        return path.exists()


def try_all(folder: Path, trials: int, number: int) -> dict[str, Count]:
    """Trials over all kinds in turn; each file is put back afterwards."""
    draw, files = random.Random(number), Files(folder)
    kinds = files.kinds()
    before = _content(folder)
    whole: dict[str, Any] = {}
    for kind in kinds:
        with silent():
            whole[kind.name] = kind.use()
        _put_back(folder, before)
    counts = {kind.name: Count() for kind in kinds}
    for trial in range(trials):
        kind = kinds[trial % len(kinds)]
        flip(draw.choice(kind.files), draw)
        _judge(kind, whole[kind.name], counts[kind.name])
        _put_back(folder, before)
    return counts


def _judge(kind: Kind, whole: Any, count: Count) -> None:
    with silent() as said:
        try:
            now = kind.use()
        except (UserError, MachineError):
            count.found += 1
            return
    warned = "warning" in said.getvalue()
    left_out = kind.name == "environment.json" and now[:-1] == whole[:-1] and warned
    if not (now == whole or left_out):
        count.other += 1
    elif warned:
        count.found += 1
    else:
        count.harmless += 1


def _content(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def _put_back(folder: Path, before: dict[Path, tuple[bytes, int]]) -> None:
    """All as it was, times too: decoded images are known by those."""
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in before]:
        path.unlink()
    for path, (content, time) in before.items():
        if not path.exists() or path.stat().st_mtime_ns != time or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(time, time))


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="in all (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the bits (default 0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = try_all(Path(folder), arguments.trials, arguments.seed)
    print(f"{'file':24} found harmless other")
    for name, count in counts.items():
        print(f"{name:24} {count.found:5} {count.harmless:8} {count.other:5}")
    total = [sum(getattr(count, what) for count in counts.values()) for what in ("found", "harmless", "other")]
    print(f"{'in all':24} {total[0]:5} {total[1]:8} {total[2]:5}")
    sys.exit(1 if total[2] else 0)


if __name__ == "__main__":
    run()
