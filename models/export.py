"""A trained network as files for deployment: weights, a torch.export program and ONNX, and each loaded again.

The graphs take pictures as they are decoded and do the resizing and the normalisation themselves.
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
from models.checkpoint import copy_weights, load, save
from models.resizing import Resize, resize_pixels

INPUT, OUTPUT = "rgb_uint8", "logits"
WEIGHTS, SAFETENSORS = "model.pt", "model.safetensors"
PROGRAM, ONNX = f"model_{INPUT}.pt2", f"model_{INPUT}.onnx"
NEEDED_FOR_ONNX = ("onnx", "onnxscript", "onnxruntime")
REQUIREMENTS = "requirements-export.txt"

Runner = Callable[[Tensor], Tensor]  # uint8 (B, 3, H, W) to logits (B, C)


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of a picture before a network sees it."""

    image_size: int  # S
    mean: tuple[float, ...]  # of the channels, in 0..1
    std: tuple[float, ...]
    resize: Resize = "squash"


class FromPixels(nn.Module):
    """A network behind its preprocessing: uint8 RGB of any height and width in, logits out.

    Resizes as the decoder does; where Pillow's fixed point rounds otherwise, a value is off by 1 or 2 of 255.
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

    def resized(self, rgb_uint8: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 as whole numbers in 0..255, (B, 3, S, S) float32."""
        return resize_pixels(rgb_uint8, self.preprocessing.image_size, self.preprocessing.resize)

    def forward(self, rgb_uint8: Tensor) -> Tensor:
        logits: Tensor = self.network(self.resized(rgb_uint8) * self.scale - self.shift)
        return logits


def missing(*packages: str) -> list[str]:
    """Those of some packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def for_deployment(network: nn.Module) -> nn.Module:
    """A network as it is exported: float32 on the CPU, evaluation mode, channels first."""
    return network.cpu().float().to(memory_format=torch.contiguous_format).eval()


def write_weights(network: nn.Module, path: Path) -> None:
    """Write a plain state dict."""
    save(path, copy_weights(network))


def write_safetensors(network: nn.Module, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the same with `metadata` in its head; needs safetensors."""
    from safetensors.torch import save as to_bytes

    weights = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    content = to_bytes(weights, {"format": "pt", **as_text(metadata)})
    write_atomically(path, lambda file: file.write(content))


def write_program(model: FromPixels, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a torch.export program that takes any batch, height and width; `metadata` is its metadata.json."""
    program = torch.export.export(model, (_example(model),), dynamic_shapes=_any_size())
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"metadata.json": json.dumps(metadata)})
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def write_onnx(model: FromPixels, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write ONNX that takes any batch, height and width, with `metadata` as its properties.

    Needs `NEEDED_FOR_ONNX`; weights of more than 2 GB, which ONNX does not hold, lie beside it in NAME.onnx.data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its own deprecations
        program = torch.onnx.export(
            model,
            (_example(model),),
            dynamo=True,
            dynamic_shapes=_any_size(),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None  # None only where an exporter other than dynamo's is asked for
        program.model.metadata_props.update(as_text(metadata))
        program.save(path)


def as_text(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as formats hold it that know only text: text stays, all else becomes JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


def load_weights_file(path: Path, network: nn.Module, preprocessing: Preprocessing) -> Runner:
    """`network`, made anew, with the weights of a file of `write_weights` or `write_safetensors`."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights = load_file(path)
    else:
        weights = load(path)
    network = for_deployment(network)
    network.load_state_dict(weights)
    return FromPixels(network, preprocessing).eval()


def load_program(path: Path) -> Runner:
    """What `write_program` wrote."""
    program: Runner = torch.export.load(path).module()
    return program


def load_onnx(path: Path) -> Runner:
    """What `write_onnx` wrote, by onnxruntime on the CPU with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: pixels.numpy()})[0])

    return run


def _example(model: FromPixels) -> Tensor:
    """Two pictures of no size that a network has, so that none is taken for fixed."""
    side = model.preprocessing.image_size
    return torch.zeros(2, 3, side + 3, side + 5, dtype=torch.uint8)


def _any_size() -> tuple[dict[int, Any]]:
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
    return ({0: batch, 2: height, 3: width},)
