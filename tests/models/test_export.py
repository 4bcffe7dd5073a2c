from __future__ import annotations

from pathlib import Path

import torch

from models.checkpoint import load
from models.export import NEEDED_FOR_ONNX, export_model
from models.resnet import CifarResNet


def build() -> CifarResNet:
    return CifarResNet(8, (4, 4, 8, 8), 3)


def test_each_file_gives_the_models_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = build(), torch.randn(2, 3, 8, 8)
    weights, program, onnx = export_model(model, images, build, tmp_path / "new")
    assert weights.path.name == "student.pt" and weights.difference == 0.0
    again = load(weights.path)
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
    assert program.difference is not None and program.difference < 1e-5
    other = torch.randn(5, 3, 8, 8)  # another batch size than the one it was exported with
    loaded = torch.export.load(program.path).module()
    with torch.no_grad():
        torch.testing.assert_close(loaded(other), model.eval()(other), rtol=1e-4, atol=1e-5)
    assert onnx.difference is None or onnx.difference < 1e-5


def test_onnx_is_left_out_where_its_packages_are_missing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    onnx = export_model(build(), torch.randn(2, 3, 8, 8), build, tmp_path)[-1]
    assert (onnx.difference, onnx.note) == (None, f"not written: pip install {' '.join(NEEDED_FOR_ONNX)}")
    assert not onnx.path.exists()
