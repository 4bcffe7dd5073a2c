"""A trained student for deployment, each file loaded again and compared with the model it came from."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from files import write_atomically
from models.checkpoint import copy_of, load, save

NEEDED_FOR_ONNX = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """One written file; `difference` is the largest |logit - logit of the model|, None if it was not written."""

    path: Path
    difference: float | None
    note: str = ""


def export_model(model: nn.Module, images: Tensor, build: Callable[[], nn.Module], folder: Path) -> list[Exported]:
    """Write `model` as a state dict, a torch.export program and ONNX, all float32 on the CPU.

    Args:
        model: the trained network.
        images: (B, 3, S, S) float32 normalised test images, B of at least 2; files take any batch size.
        build: makes a network of the same architecture for the state dict to be loaded into.
        folder: where the files go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = model.cpu().float().to(memory_format=torch.contiguous_format).eval()
    images = images.cpu().float()
    with torch.no_grad():
        wanted = model(images)
        return [
            _state_dict(model, images, wanted, build, folder / "student.pt"),
            _program(model, images, wanted, folder / "student.pt2"),
            _onnx(model, images, wanted, folder / "student.onnx"),
        ]


def _difference(given: Tensor, wanted: Tensor) -> float:
    return (given - wanted).abs().max().item()


def _state_dict(
    model: nn.Module, images: Tensor, wanted: Tensor, build: Callable[[], nn.Module], path: Path
) -> Exported:
    save(path, copy_of(model))
    again = build().cpu().float()
    again.load_state_dict(load(path))
    return Exported(path, _difference(again.eval()(images), wanted))


def _program(model: nn.Module, images: Tensor, wanted: Tensor, path: Path) -> Exported:
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model, (images,), dynamic_shapes=shapes)
    write_atomically(path, lambda file: torch.export.save(program, file))
    return Exported(path, _difference(torch.export.load(path).module()(images), wanted))


def _onnx(model: nn.Module, images: Tensor, wanted: Tensor, path: Path) -> Exported:
    missing = [name for name in NEEDED_FOR_ONNX if importlib.util.find_spec(name) is None]
    if missing:
        return Exported(path, None, f"not written: pip install {' '.join(missing)}")
    import onnxruntime

    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its own deprecations
        program = torch.onnx.export(
            model, (images,), dynamo=True, dynamic_shapes=shapes, input_names=["images"], verbose=False
        )
    assert program is not None  # None only where an exporter other than dynamo's is asked for
    write_atomically(path, lambda file: file.write(program.model_proto.SerializeToString()))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return Exported(path, _difference(torch.from_numpy(logits), wanted))
