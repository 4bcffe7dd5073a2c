"""An exported network in int8 by onnxruntime's own tool, and what that costs and gains beside the float one.

Convolutional networks are quantised statically: the ranges of activations are calibrated on training images. Those
with layer normalisation (transformers) dynamically, their matrix products alone, as onnxruntime's manual advises.
Letters: B batch, S side in pixels, C classes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diagnostics.cost import Latency, latencies
from diagnostics.export.checks import agreement
from models.export import INPUT, FromPixels, Runner, as_text, load_onnx

QUANTIZED = f"model_int8_{INPUT}.onnx"
CALIBRATION_IMAGES = 256
BATCH = 64  # of images whose outputs are compared
LATENCY_BATCHES = (1, 32)
LATENCY_SECONDS = 1.5  # a model and a batch size


@dataclass(frozen=True)
class Deployed:
    """One way to run the network, on the same images and the same threads as the others."""

    name: str
    bytes: int | None  # of its file
    top1: float
    agreement: float  # share of images that get the float student's class
    latencies: list[Latency]


@dataclass(frozen=True)
class Quantized:
    """The network in float and in int8."""

    method: Literal["static", "dynamic"]
    calibration_images: int  # of the training images; 0 for dynamic
    images: int  # test images that accuracy and agreement are measured on
    threads: int
    processor: str
    rows: list[Deployed]  # torch float32, onnxruntime float32, onnxruntime int8


def write_quantized(
    source: Path, path: Path, network: nn.Module, calibration: Tensor, metadata: dict[str, Any]
) -> Literal["static", "dynamic"]:
    """Write the int8 version of an exported ONNX file; says how it was made.

    Args:
        source: a file of `write_onnx`.
        path: where the new one goes.
        network: what `source` came from.
        calibration: (B, 3, S, S) uint8 training images.
        metadata: properties of the file.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    dynamic = any(isinstance(module, nn.LayerNorm) for module in network.modules())
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        prepared = Path(folder) / source.name
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        if dynamic:
            quantization.quantize_dynamic(
                prepared, path, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, reduce_range=True
            )
        else:
            quantization.quantize_static(
                prepared,
                path,
                _Reader(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=True,  # a processor without VNNI adds products of 8 bits in 16, which saturate
                nodes_to_exclude=_preprocessing_nodes(onnx.load(prepared)),
            )
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, as_text(metadata))
    onnx.save(model, path)
    return "dynamic" if dynamic else "static"


class _Reader:
    """Calibration images as onnxruntime's tool asks for them."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter(images.split(BATCH))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.numpy()}


@contextmanager
def _without_advice() -> Iterator[None]:
    """onnxruntime's tool logs its advice to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _preprocessing_nodes(model: Any) -> list[str]:
    """Names of the nodes before the network: those that follow from the input without a parameter of the network.

    The exporter keeps the graph in the order of computation, preprocessing first.
    """
    parameters = {tensor.name for tensor in model.graph.initializer if tensor.name.startswith("network.")}
    names: list[str] = []
    for node in model.graph.node:
        if parameters & set(node.input):
            break
        names.append(node.name)
    return names


@torch.no_grad()
def compare(model: FromPixels, files: dict[str, Path], pixels: Tensor, labels: Tensor) -> list[Deployed]:
    """The float model in torch and exported ONNX files on the same images, timed in turn.

    Args:
        model: the float one.
        files: ONNX files by the name that is shown.
        pixels: (B, 3, S, S) uint8 test images.
        labels: (B,) their classes.
    """
    runners: dict[str, Runner] = {
        "torch float32": model,
        **{name: load_onnx(path) for name, path in files.items()},
    }
    logits = {
        name: torch.cat([run(batch) for batch in pixels.split(BATCH)]) for name, run in runners.items()
    }  # (B, C) each
    repeated = pixels[torch.arange(max(LATENCY_BATCHES)) % len(pixels)]
    timed = [latencies(list(runners.values()), repeated[:batch], LATENCY_SECONDS) for batch in LATENCY_BATCHES]
    return [
        Deployed(
            name,
            files[name].stat().st_size if name in files else None,
            (logits[name].argmax(dim=1) == labels).double().mean().item(),
            agreement(logits[name], logits["torch float32"]),
            [of_batch[number] for of_batch in timed],
        )
        for number, name in enumerate(runners)
    ]
