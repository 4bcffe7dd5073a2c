"""Graphs for deployment, torch.export and ONNX, with preprocessing inside.

Letters: B batch, H x W height and width of a picture, S side of the network's input in pixels, C classes.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from files import write_atomically
from models.checkpoint import load
from models.resizing import Resize, resize_pixels

INPUT, OUTPUT = "rgb_uint8", "logits"
WEIGHTS, PROGRAM, ONNX = "model.pt", f"model_{INPUT}.pt2", f"model_{INPUT}.onnx"
NEEDED_FOR_ONNX = ("onnx", "onnxscript", "onnxruntime")
REQUIREMENTS = "requirements-export.txt"

Runner = Callable[[Tensor], Tensor]  # uint8 (B, 3, H, W) to logits (B, C)


@dataclass(frozen=True)
class Preprocessing:
    """Resizing and normalisation of a picture before the network."""

    image_size: int  # S
    mean: tuple[float, ...]  # of the channels, in 0..1
    std: tuple[float, ...]
    resize: Resize = "squash"


class FromPixels(nn.Module):
    """A network behind its preprocessing: uint8 RGB of any height and width in, logits out.

    Resizes as the decoder does; Pillow's fixed point may round a value otherwise, by 1 or 2 of 255.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None], persistent=False)
        self.register_buffer("shift", (mean / std)[:, None, None], persistent=False)

    def resize(self, rgb_uint8: Tensor) -> Tensor:
        """Return (B, 3, H, W) uint8 as whole numbers in 0..255, (B, 3, S, S) float32."""
        return resize_pixels(rgb_uint8, self.preprocessing.image_size, self.preprocessing.resize)

    def forward(self, rgb_uint8: Tensor) -> Tensor:
        logits: Tensor = self.network(self.resize(rgb_uint8) * self.scale - self.shift)
        return logits


def find_missing(*packages: str) -> list[str]:
    """Return those of some packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def prepare_network(network: nn.Module) -> nn.Module:
    """Prepare a network for export: float32, CPU, evaluation, channels first."""
    return network.cpu().float().to(memory_format=torch.contiguous_format).eval()


def load_weights(path: Path, network: nn.Module, preprocessing: Preprocessing) -> Runner:
    """Load a plain state dict into a new `network`."""
    network = prepare_network(network)
    network.load_state_dict(load(path))
    return FromPixels(network, preprocessing).eval()


def write_program(model: FromPixels, metadata: Mapping[str, Any], path: Path) -> None:
    """Write a torch.export program for any batch and size, with metadata.json."""
    program = torch.export.export(model, (_make_example(model),), dynamic_shapes=_make_dynamic_shapes())
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"metadata.json": json.dumps(metadata)})
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def load_program(path: Path) -> Runner:
    """Load a torch.export program."""
    program: Runner = torch.export.load(path).module()
    return program


def write_onnx(model: FromPixels, metadata: Mapping[str, Any], path: Path) -> None:
    """Write ONNX for any batch, height and width, with `metadata` as its properties.

    Needs `NEEDED_FOR_ONNX`. ONNX holds no more than 2 GB: larger weights lie beside it in NAME.onnx.data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            model,
            (_make_example(model),),
            dynamo=True,
            dynamic_shapes=_make_dynamic_shapes(),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None  # None only from the exporter before dynamo's
        program.model.metadata_props.update(format_metadata(metadata))
        program.save(path)


def load_onnx(path: Path) -> Runner:
    """Load ONNX in onnxruntime, on the CPU with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: pixels.numpy()})[0])

    return run


def format_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Format metadata for files that know only text: all else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


def _make_example(model: FromPixels) -> Tensor:
    """Make two pictures of a size that the graph must not take for fixed."""
    side = model.preprocessing.image_size
    return torch.zeros(2, 3, side + 3, side + 5, dtype=torch.uint8)


def _make_dynamic_shapes() -> tuple[dict[int, Any]]:
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
    return ({0: batch, 2: height, 3: width},)
