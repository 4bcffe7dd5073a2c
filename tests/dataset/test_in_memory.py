"""Of dataset/images.py and dataset/sources.py: images in memory and images that stay in files are the same."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset import images, memory
from dataset.files.stored_pixels import StoredPixels
from dataset.images import Batch
from dataset.loader import training_batches, view_batches
from dataset.prepare import TrainingData, prepare
from dataset.sources import load_source
from errors import UserError, note
from files import locked
from settings.images import Data, Shortcut

CPU = torch.device("cpu")
CUES = (
    Shortcut(),
    Shortcut(cue="background", conflicting=0.2),
    Shortcut(cue="corruption", conflicting=0.2, pairs="counterfactual"),
)


def both(root: Path, cache: Path, shortcut: Shortcut = CUES[0], **options: object) -> list[TrainingData]:
    """The same images in memory and in files."""
    found = []
    for in_memory in (True, False):
        settings = {"source": "folder", "root": root, "image_size": 12, "cache_dir": cache, "crop": 2} | options
        data = Data(in_memory=in_memory, **settings)
        found.append(prepare(load_source(data), data, CPU, shortcut))
    assert not isinstance(found[0].train.pixels, StoredPixels) and isinstance(found[1].train.pixels, StoredPixels)
    return found


def same(first: Batch, second: Batch) -> bool:
    parts = ("images", "labels", "indices", "targets", "for_teacher")
    return all(torch.equal(getattr(first, part), getattr(second, part)) for part in parts)


@pytest.mark.parametrize("shortcut", CUES)
@pytest.mark.parametrize("split", [None, 0.6])
def test_batches_are_the_same_bit_by_bit(
    image_root: Path, tmp_path: Path, shortcut: Shortcut, split: float | None
) -> None:
    first, second = both(image_root, tmp_path, shortcut, split=split, val_fraction=0.25)
    assert first.fingerprint == second.fingerprint and first.identity == second.identity
    assert torch.equal(first.mean, second.mean) and torch.equal(first.std, second.std)
    batches = [list(training_batches(data, 10, seed=3, epoch=1, view=4)) for data in (first, second)]
    assert len(batches[0]) > 2 and all(map(same, *batches))
    names = ("val", "test", "balanced", "held_out")
    parts = [(getattr(first, name), getattr(second, name)) for name in names if getattr(first, name) is not None]
    assert len(parts) >= 3
    for one, other in [(first.train, second.train), *parts]:
        assert len(one) == len(other) and all(map(same, one.batches(7), other.batches(7)))
    seen = [[images for _, images in view_batches(data, 2, 9, for_teacher=True)] for data in (first, second)]
    assert torch.equal(*map(torch.cat, seen))


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "erasing"])
def test_mixed_and_transformed_batches_are_the_same_in_each_process(
    image_root: Path, tmp_path: Path, mix: str
) -> None:
    options = {"mix": mix, "augment": [{"RandomErasing": {}}, {"ColorJitter": {"hue": 0.3}}]}
    first, second = both(image_root, tmp_path, **options)
    for rank in (0, 1):
        batches = [list(training_batches(data, 16, 3, 1, 4, rank, 2)) for data in (first, second)]
        assert len(batches[0]) == 4 and all(map(same, *batches))


@pytest.mark.parametrize("in_memory", [True, False])
def test_files_are_decoded_once_whatever_is_asked_for_first(
    image_root: Path, tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"source": "folder", "root": image_root, "image_size": 12, "cache_dir": tmp_path}
    first = load_source(Data(in_memory=in_memory, **options))
    monkeypatch.setattr("dataset.sources.decode_files", None)  # nothing is decoded any more
    second = load_source(Data(in_memory=not in_memory, **options))
    assert first.identity == second.identity and np.array_equal(first.test.pixels[:], second.test.pixels[:])
    assert first.train.names is not None and np.array_equal(first.train.names, second.train.names)


def test_a_run_goes_on_either_way_with_the_same_results(call_main: Callable[..., Any], tmp_path: Path) -> None:
    settings = ["shortcut.cue=background", "data.val_fraction=0.25", "training.epochs=2"]
    settings += ["teacher.epochs=1", "teacher.cached_views=1", "methods=[two_stage]"]

    def train(name: str, phase: str, in_memory: str, *words: str) -> None:
        given = [
            "--phase",
            phase,
            "--quiet",
            *words,
            "--set",
            *settings,
            f"name={name}",
            f"data.in_memory={in_memory}",
        ]
        done = call_main(tmp_path, *given)
        assert done.returncode == 0, done.stderr

    train("memory", "all", "true")
    train("mixed", "teacher", "true")
    train("mixed", "all", "false", "--resume")
    weights = [sorted((tmp_path / name).rglob("model.pt")) for name in ("memory", "mixed")]
    assert len(weights[0]) == 3
    for one, other in zip(*weights, strict=True):
        pair = [torch.load(path, weights_only=True) for path in (one, other)]
        pair = [part.get("model", part) for part in pair]
        assert all(torch.equal(pair[0][key], pair[1][key]) for key in pair[0]), one


def test_of_two_processes_one_decodes_and_the_other_waits(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("files.LOOK_AGAIN", 0.01)
    data = Data(source="folder", root=image_root, image_size=12, cache_dir=tmp_path / "cache")
    before = load_source(data)
    (folder,) = (tmp_path / "cache").iterdir()
    folder.rename(tmp_path / "elsewhere")
    monkeypatch.setattr("dataset.sources.decode_files", None)  # who waits does not decode
    with ThreadPoolExecutor(1) as pool:
        with locked(folder.with_name(f"{folder.name}.lock")):
            other = pool.submit(load_source, data)
            time.sleep(0.1)
            assert not other.done()
            (tmp_path / "elsewhere").rename(folder)
        assert other.result().identity == before.identity
    assert list((tmp_path / "cache").iterdir()) == [folder]
    folder.with_name(f"{folder.name}.lock").touch()  # of one that died as it had finished
    load_source(data)
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_images_that_cannot_be_read_leave_no_folder(tmp_path: Path, image_root: Path) -> None:
    shutil.copytree(image_root, tmp_path / "images")
    (tmp_path / "images" / "test" / "date" / "3.png").write_bytes(b"none")
    with pytest.raises(UserError, match=r"date/3\.png cannot be read as an image"):
        load_source(Data(source="folder", root=tmp_path / "images", cache_dir=tmp_path / "a" / "cache"))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_auto_decides_by_what_is_free_and_says_so(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note.cache_clear()
    data = Data(source="folder", root=image_root, image_size=12, cache_dir=tmp_path)
    needed = 96 * 3 * 12**2
    monkeypatch.setattr(memory, "free_memory", lambda: 2 * needed)
    assert isinstance(load_source(data).train.pixels, np.ndarray) and capsys.readouterr().err == ""
    monkeypatch.setattr(memory, "free_memory", lambda: 2 * needed - 1)
    assert isinstance(load_source(data).train.pixels, StoredPixels)
    said = capsys.readouterr().err
    assert said.startswith("data.in_memory=auto: 96 decoded images take 0.0 GB") and said.count("\n") == 1
    assert "from a file in data.cache_dir" in said
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    assert isinstance(load_source(data).train.pixels, np.ndarray)


def test_memory_that_there_is_not_is_refused_and_files_need_none(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 1000)
    options = {"source": "folder", "root": image_root, "image_size": 12, "cache_dir": tmp_path / "cache"}
    with pytest.raises(UserError, match=r"data\.image_size=12: 96 decoded .*, or data\.in_memory=false"):
        load_source(Data(in_memory=True, **options))
    assert len(load_source(Data(in_memory=False, **options)).train) == 64


def test_a_disk_without_room_is_refused_before_anything_is_decoded(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(
        UserError, match=r"data\.image_size=12: 96 decoded images take .* of disk in data\.cache_dir"
    ):
        load_source(Data(source="folder", root=image_root, image_size=12, cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_what_files_cannot_have_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note.cache_clear()
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 4), np.uint8))
    pixels = StoredPixels.of(tmp_path / "a.npy")
    assert images._held(pixels, torch.device("cuda")) is pixels
    assert "none are kept on the GPU" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the digits come from memory"):
        Data(in_memory=False)
    with pytest.raises(ValueError, match="in_memory"):
        Data(source="folder", in_memory=1)
