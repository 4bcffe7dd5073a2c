"""Int8 by onnxruntime's tool, and its accuracy and latency.

Convolutional networks are quantised statically: training images calibrate the ranges of activations. Networks with
layer normalisation (transformers) are quantised dynamically, as onnxruntime's manual advises.
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

from diagnostics.cost import Latency, measure_latencies
from diagnostics.export.checks import measure_agreement
from models.export import INPUT, FromPixels, Runner, format_metadata, load_onnx

QUANTIZED = f"model_int8_{INPUT}.onnx"
CALIBRATION_IMAGES = 256
BATCH = 64  # images whose outputs are compared at a time
LATENCY_BATCHES = (1, 32)
LATENCY_SECONDS = 1.5  # a model and a batch size

Method = Literal["static", "dynamic"]


@dataclass(frozen=True)
class Deployment:
    """One way to run the network, on the same images and threads as the others."""

    name: str
    bytes: int | None  # of its file
    top1: float
    agreement: float  # share of images that get the float network's class
    latencies: list[Latency]


@dataclass(frozen=True)
class Quantized:
    """The network in float and in int8."""

    method: Method
    calibration_images: int  # of the training images; 0 for dynamic
    images: int  # test images behind accuracy and agreement
    threads: int
    processor: str
    rows: list[Deployment]  # torch float32, onnxruntime float32, onnxruntime int8


def write_quantized(
    source: Path, path: Path, network: nn.Module, calibration: Tensor, metadata: dict[str, Any]
) -> Method:
    """Write the int8 version of an exported ONNX file and return the method.

    Args:
        source: a file of `write_onnx`.
        path: the new file.
        network: the network in `source`.
        calibration: (B, 3, S, S) uint8 training images.
        metadata: properties of the file.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    is_dynamic = any(isinstance(module, nn.LayerNorm) for module in network.modules())
    # 7 bits: a processor without VNNI adds products of 8 bits in 16, which saturate
    common: dict[str, Any] = {"per_channel": True, "reduce_range": True}
    with tempfile.TemporaryDirectory() as folder, _ignore_advice():
        prepared = Path(folder) / source.name
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        if is_dynamic:
            quantization.quantize_dynamic(prepared, path, op_types_to_quantize=["MatMul", "Gemm"], **common)
        else:
            quantization.quantize_static(
                prepared,
                path,
                _CalibrationReader(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=_list_preprocessing_nodes(onnx.load(prepared)),
                **common,
            )
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, format_metadata(metadata))
    onnx.save(model, path)
    return "dynamic" if is_dynamic else "static"


class _CalibrationReader:
    """Calibration images in the form that onnxruntime's tool asks for."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter(images.split(BATCH))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.numpy()}


@contextmanager
def _ignore_advice() -> Iterator[None]:
    """Ignore the advice that onnxruntime's tool gives on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _list_preprocessing_nodes(model: Any) -> list[str]:
    """Return names of the nodes before the first parameter of the network."""
    parameters = {tensor.name for tensor in model.graph.initializer if tensor.name.startswith("network.")}
    names: list[str] = []
    for node in model.graph.node:
        if parameters & set(node.input):
            break
        names.append(node.name)
    return names


@torch.no_grad()
def compare_deployments(
    model: FromPixels, files: dict[str, Path], pixels: Tensor, labels: Tensor
) -> list[Deployment]:
    """Compare the float model with ONNX files on the same images, in turn.

    Args:
        model: the float one.
        files: ONNX files by the name to show.
        pixels: (B, 3, S, S) uint8 test images.
        labels: (B,) their classes.
    """
    runners: dict[str, Runner] = {
        "torch float32": model,
        **{name: load_onnx(file) for name, file in files.items()},
    }
    logits = {
        name: torch.cat([run(batch) for batch in pixels.split(BATCH)]) for name, run in runners.items()
    }  # (B, C) each
    repeated = pixels[torch.arange(max(LATENCY_BATCHES)) % len(pixels)]
    timed = [
        measure_latencies(list(runners.values()), repeated[:batch], LATENCY_SECONDS) for batch in LATENCY_BATCHES
    ]
    return [
        Deployment(
            name,
            files[name].stat().st_size if name in files else None,
            (logits[name].argmax(dim=1) == labels).double().mean().item(),
            measure_agreement(logits[name], logits["torch float32"]),
            [latencies[number] for latencies in timed],
        )
        for number, name in enumerate(runners)
    ]
