"""Fuzzing what the program keeps for itself: caches, records, locks, and images that somebody gives it."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from dataset.files.decode import decode_files
from dataset.files.decoded_cache import read_cache, write_cache
from diagnostics.report.parts import facts
from files import locked
from tests.dataset.files.test_decoded_cache import make_undecoded
from tests.faults.fuzz import Result, Target
from tests.faults.mutations import CHANGES, VALUES, Change, altered, changed, same
from tests.faults.small_place import Place, cache_outputs
from training import teacher_cache
from training.experiment import Experiment
from training.run.environment import environment, read_environment
from training.run.identity import check_identity, write_identity
from training.run.job_folder import JobFolder
from training.run.record_file import read_record, write_record

FORMATS = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "tga")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
RESULT = {"model_sha256": "0123456789abcdef", "test_top1": 0.5, "files": {"metrics.jsonl": "0123456789abcdef"}}
LINES = [{"epoch": 1, "loss": 0.5, "test_top1": 0.25}, {"epoch": 2, "loss": 0.25, "test_top1": 0.5}]
HOLDER = {"host": "node", "process": 3, "boot": "0123", "since": "2026-01-01"}
CACHED = ("pixels.npy", "labels.npy", "meta.json")
VIEW = ("view0.npy", "view0.sha256")


def targets(place: Place) -> list[Target]:
    folder = place.folder / "files"
    folder.mkdir()
    experiment = place.experiment()
    write_identity(folder, experiment.data)
    identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
    identity = {key: value for key, value in identity.items() if key not in ("version", "digest")}
    meta = json.loads(_cache(folder / "meta").joinpath("meta.json").read_text(encoding="utf-8"))
    text = "".join(json.dumps(line) + "\n" for line in LINES).encode()
    found = environment()
    return [
        Target("images", st.tuples(st.sampled_from(FORMATS), CHANGES), partial(_image, folder)),
        Target("decoded images, bytes", st.tuples(st.sampled_from(CACHED), CHANGES), partial(_decoded, folder)),
        Target("decoded images, meta", altered(meta), partial(_meta, folder)),
        Target("teacher's outputs", st.tuples(st.sampled_from(VIEW), CHANGES), _Views(place).check, 0.2),
        Target("result.json, bytes", CHANGES, partial(_result_bytes, folder)),
        Target("result.json, values", altered(RESULT), partial(_result, folder)),
        Target("metrics.jsonl, bytes", CHANGES.map(partial(changed, text)), partial(_metrics, folder)),
        Target("metrics.jsonl, values", altered(LINES), partial(_metric_lines, folder)),
        Target("identity.json, bytes", CHANGES, partial(_identity_bytes, folder, experiment)),
        Target("identity.json, values", altered(identity), partial(_identity, folder, experiment)),
        Target("environment.json, values", altered(found) | VALUES, partial(_environment, folder)),
        Target(".lock", st.binary(max_size=30) | altered(HOLDER).map(_as_json), partial(_lock, folder)),
    ]


def _as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _image(folder: Path, given: tuple[str, list[Change]]) -> Result:
    kind, changes = given
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind.replace("tga", "TGA"))
    path = folder / f"image.{kind}"
    path.write_bytes(changed(file.getvalue(), changes))
    (pixels,) = decode_files([path], 8)
    assert pixels.shape == (1, 3, 8, 8) and pixels.dtype == np.uint8
    return "right"


def _cache(folder: Path) -> Path:
    pixels = np.arange(7 * 3 * 4 * 4, dtype=np.uint8).reshape(7, 3, 4, 4)
    write_cache(folder, make_undecoded(pixels, 4, ("ash", "birch")))
    return folder


def _decoded(folder: Path, given: tuple[str, list[Change]]) -> Result:
    name, changes = given
    cache = _cache(folder / "decoded")
    (cache / name).write_bytes(changed((cache / name).read_bytes(), changes))
    return _as_it_was(cache)


def _meta(folder: Path, meta: Any) -> Result:
    cache = _cache(folder / "decoded")
    (cache / "meta.json").write_bytes(_as_json(meta))
    return _as_it_was(cache)


def _as_it_was(cache: Path) -> Result:
    found = read_cache(cache)
    if found is None:
        assert not cache.exists()
        return "made anew"
    assert found[2] == ["ash", "birch"]
    assert np.array_equal(
        np.concatenate([found[0].pixels, found[1].pixels]).ravel(), np.arange(336, dtype=np.uint8)
    )
    assert [part.labels.tolist() for part in found[:2]] == [[0, 1, 0, 1], [0, 1, 0]]
    return "right"


class _Views:
    """A cache of a teacher's outputs that lacks one of two views."""

    def __init__(self, place: Place) -> None:
        self.experiment = place.experiment(f"data.cache_dir={place.folder / 'views'}")
        self.teacher = self.experiment.new_student(0)
        cache_outputs(self.experiment, self.teacher)
        (self.folder,) = (place.folder / "views").glob("teacher-*")
        self.whole = {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def check(self, given: tuple[str, list[Change]]) -> Result:
        name, changes = given
        teacher_cache._has_digest.cache_clear()
        for path in self.folder.iterdir():
            path.unlink()
        for kept in ("view0.npy", "view0.sha256"):
            (self.folder / kept).write_bytes(self.whole[kept])
        path = self.folder / name
        path.write_bytes(changed(path.read_bytes(), changes))
        cache_outputs(self.experiment, self.teacher)
        assert {path.name: path.read_bytes() for path in self.folder.iterdir()} == self.whole
        return "right"


def _result_bytes(folder: Path, changes: list[Change]) -> Result:
    path = folder / "result.json"
    write_record(path, RESULT)
    path.write_bytes(changed(path.read_bytes(), changes))
    assert JobFolder(folder).result() == RESULT
    return "right"


def _result(folder: Path, values: Any) -> Result:
    """Signed, but by a stranger."""
    write_record(folder / "result.json", _finite(values))
    job = JobFolder(folder)
    assert set(job.lacking()) <= {"model.pt", "metrics.jsonl", "projections.pt"}
    job.verified_model()
    return "right"


def _finite(values: Any) -> Any:
    """The same without NaN and infinity, which no record can have, and with a section at its head."""
    plain = json.loads(json.dumps(values), parse_constant=lambda name: 0)
    return plain if isinstance(plain, dict) else {"model_sha256": plain}


def _metrics(folder: Path, content: bytes) -> Result:
    (folder / "metrics.jsonl").write_bytes(content)
    history = JobFolder(folder).history()
    assert all(isinstance(value, int | float) for line in history for value in line.values())
    return "right"


def _metric_lines(folder: Path, lines: Any) -> Result:
    given = lines if isinstance(lines, list) else [lines]
    return _metrics(folder, "".join(json.dumps(line) + "\n" for line in given).encode())


def _identity_bytes(folder: Path, experiment: Experiment, changes: list[Change]) -> Result:
    write_identity(folder, experiment.data)
    path = folder / "identity.json"
    path.write_bytes(changed(path.read_bytes(), changes))
    check_identity(folder, experiment.data)
    return "right"


def _identity(folder: Path, experiment: Experiment, values: Any) -> Result:
    write_identity(folder, experiment.data)
    whole = read_record(folder / "identity.json", "")
    write_record(folder / "identity.json", _finite(values))
    check_identity(folder, experiment.data)
    now = read_record(folder / "identity.json", "")
    assert same({**now, "data": {**now["data"], "decoder": 0}}, {**whole, "data": {**whole["data"], "decoder": 0}})
    return "right"


def _environment(folder: Path, values: Any) -> Result:
    write_record(folder / "environment.json", _finite(values))
    facts(read_environment(folder), read_environment(folder))
    return "right"


def _lock(folder: Path, content: bytes) -> Result:
    path = folder / ".lock"
    path.write_bytes(content)
    with locked(path, strict=True) as other:
        str(other)
    path.unlink(missing_ok=True)
    return "right" if other is None else "refused"
