from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.views.augment import normalise
from models.checkpoint import copy_weights, save
from models.export import (
    NEEDED_FOR_ONNX,
    PROGRAM,
    WEIGHTS,
    FromPixels,
    Preprocessing,
    find_missing,
    load_onnx,
    load_program,
    load_weights,
    prepare_network,
    write_onnx,
    write_program,
)
from models.networks.resnet import CifarResNet
from models.resizing import Resize

SIDE = 8
PREPROCESSING = Preprocessing(SIDE, (0.4, 0.5, 0.45), (0.2, 0.25, 0.3))
METADATA = {"arch": "resnet8", "classes": ["ash", "übel"], "seed": 0}


def build_network() -> CifarResNet:
    return CifarResNet(8, (4, 4, 8, 8), 3)


@pytest.fixture
def model() -> FromPixels:
    torch.manual_seed(0)
    return FromPixels(prepare_network(build_network()), PREPROCESSING).eval()


def draw_pictures(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_pixels_of_the_right_size_are_only_normalised(model: FromPixels) -> None:
    pixels = draw_pictures(3, SIDE, SIDE)
    mean, std = torch.tensor(PREPROCESSING.mean), torch.tensor(PREPROCESSING.std)
    assert torch.equal(model(pixels), model.network(normalise(pixels, mean, std)))


@pytest.mark.parametrize("shape", [(40, 23), (5, 90), (3, 4)])
def test_resizing_equals_pillow_up_to_one_level(model: FromPixels, shape: tuple[int, int]) -> None:
    pixels = draw_pictures(1, *shape)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    wanted = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    given = model.resize(pixels)[0].numpy()
    assert np.abs(given - wanted).max() <= 1
    assert np.array_equal(given, given.round()) and given.min() >= 0 and given.max() <= 255


def test_weights_are_a_plain_state_dict(model: FromPixels, tmp_path: Path) -> None:
    save(tmp_path / WEIGHTS, copy_weights(model.network))
    run = load_weights(tmp_path / WEIGHTS, build_network(), PREPROCESSING)
    assert torch.equal(run(draw_pictures(2, 9, 7)), model(draw_pictures(2, 9, 7)))


@pytest.mark.parametrize("resize", ["squash", "crop"])
@torch.no_grad()
def test_program_takes_any_size_and_keeps_metadata(model: FromPixels, tmp_path: Path, resize: Resize) -> None:
    model.preprocessing = replace(PREPROCESSING, resize=resize)
    write_program(model, METADATA, tmp_path / PROGRAM)
    run = load_program(tmp_path / PROGRAM)
    for pixels in (draw_pictures(1, SIDE, SIDE), draw_pictures(5, 31, 12), draw_pictures(1, 1, 50)):
        torch.testing.assert_close(run(pixels), model(pixels), rtol=1e-4, atol=1e-5)
    extra = {"metadata.json": ""}
    torch.export.load(tmp_path / PROGRAM, extra_files=extra)
    assert json.loads(extra["metadata.json"]) == METADATA


@pytest.mark.parametrize("resize", ["squash", "crop"])
@torch.no_grad()
def test_onnx_takes_any_size_and_keeps_metadata(model: FromPixels, tmp_path: Path, resize: Resize) -> None:
    for name in NEEDED_FOR_ONNX:
        pytest.importorskip(name, reason=f"ONNX needs {name} (requirements-export.txt)")
    import onnxruntime

    path = tmp_path / "model.onnx"
    model.preprocessing = replace(PREPROCESSING, resize=resize)
    write_onnx(model, METADATA, path)
    run = load_onnx(path)
    for pixels in (draw_pictures(1, SIDE, SIDE), draw_pictures(5, 31, 12), draw_pictures(1, 1, 50)):
        torch.testing.assert_close(run(pixels), model(pixels), rtol=1e-4, atol=1e-5)
    kept = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert kept["arch"] == "resnet8" and json.loads(kept["classes"]) == METADATA["classes"]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else name)
    assert find_missing("onnx", "onnxscript") == ["onnx"] and find_missing() == []
