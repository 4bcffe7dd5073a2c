"""What a person reads of an export: a card beside the files, and the lines of the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostics.cost import Latency
from diagnostics.export.checks import PIXEL_TOLERANCE, Checked, FilesChecked
from diagnostics.export.folder import METADATA, PREPROCESSING, SCRIPT
from diagnostics.export.quantize import QUANTIZED, Deployed, Quantized
from diagnostics.seeds import plain_number
from models.export import INPUT, ONNX, PROGRAM, SAFETENSORS, WEIGHTS

HOLDS = {
    WEIGHTS: "plain state dict, weights alone: preprocessing is yours",
    SAFETENSORS: "the same, with the metadata in its head",
    PROGRAM: "torch.export program, preprocessing inside",
    ONNX: "ONNX, preprocessing inside",
}


@dataclass(frozen=True)
class Export:
    """What was written."""

    folder: Path
    facts: dict[str, Any]  # see facts.py
    checks: list[Checked]
    files: FilesChecked | None  # None where the run's images are no files
    quantized: Quantized | None


def lines(made: Export) -> Iterator[str]:
    """What the terminal shows."""
    for one in made.checks:
        yield f"{made.folder / one.file}: {_checked(one)}"
    if made.files is not None:
        yield f"{made.folder / SCRIPT}: {_files(made.files)}"
    if made.quantized is not None:
        yield f"{made.folder / QUANTIZED}: int8, {_method(made.quantized)}"
        yield from _table(made.quantized)
        yield from _verdicts(made.quantized)
    yield f"{made.folder}: model card README.md, {METADATA}, {PREPROCESSING}, {SCRIPT}"


def card(made: Export) -> str:
    """The card as Markdown."""
    facts, settings = made.facts, made.facts["preprocessing"]
    accuracy, teacher = facts["accuracy"], facts["teacher"]
    of_seed = "" if facts["seed"] is None else f", seed {facts['seed']}"
    by = "" if teacher is None else f" Its teacher is a {teacher['arch']} (weights {teacher['weights']})."
    return "\n".join(
        [
            f"# {facts['arch']} of run {facts['run']}: {facts['model']}{of_seed}",
            "",
            f"A classifier of {len(facts['classes'])} classes with {facts['parameters']:,} parameters, "
            f"{accuracy['top1']:.2%} right on {accuracy['images']:,} test images (float32).{by}",
            "",
            f"    python {SCRIPT} IMAGE ...    # needs Pillow, numpy and onnxruntime, or torch in its place",
            "",
            "## Files",
            "",
            "| file | what | bytes | beside the model on test images |",
            "| --- | --- | --- | --- |",
            *(
                f"| {one.file} | {HOLDS[one.file]} | {_number(one.bytes)} | {_checked(one)} |"
                for one in made.checks
            ),
            "",
            "" if made.files is None else f"Image files through {SCRIPT}: {_files(made.files)}.\n",
            f"{METADATA} has all that is told here, the classes, the taps, versions and the whole config.",
            "",
            "## Input",
            "",
            f"`{INPUT}`: (batch, 3, height, width) uint8, red, green, blue, of any size; the graphs resize to "
            f"{settings['image_size']} x {settings['image_size']} ({settings['resize']}) and normalise by mean "
            f"{_values(settings['mean'])} and deviation {_values(settings['std'])} themselves. Turn pictures "
            f"upright and lay transparency on white first, as {SCRIPT} does. `logits`: (batch, "
            f"{len(facts['classes'])}).",
            "",
            f"Classes in order: {', '.join(facts['classes'])}.",
            f"Weights {facts['weights']}, state dict {facts['state_dict']}, images {facts['images']}, "
            f"taps {', '.join(facts['taps'])}.",
            "",
            *([] if made.quantized is None else _quantized(made.quantized)),
        ]
    )


def _quantized(quantized: Quantized) -> list[str]:
    return [
        "## int8",
        "",
        f"{QUANTIZED}: {_method(quantized)}.",
        "",
        *_markdown(quantized),
        "",
        *_verdicts(quantized),
        "",
    ]


def _checked(one: Checked) -> str:
    if one.difference is None or one.difference_of_one is None or one.agreement is None:
        return one.note
    return (
        f"largest difference in logits {one.difference:.2g}, of one image alone {one.difference_of_one:.2g}, "
        f"agreement {one.agreement:.1%}"
    )


def _files(files: FilesChecked) -> str:
    return (
        f"{files.count} test files, largest difference of pixels {files.levels} of 255 (up to {PIXEL_TOLERANCE} "
        f"is rounding), in logits {files.difference:.2g}, agreement {files.agreement:.1%}"
    )


def _method(quantized: Quantized) -> str:
    if quantized.method == "static":
        return f"static by onnxruntime, calibrated on {quantized.calibration_images} training images"
    return "dynamic by onnxruntime, matrix products alone"


HEAD = ["", "bytes", "top-1", "agrees with float"]


def _rows(quantized: Quantized) -> tuple[list[str], list[list[str]]]:
    head = HEAD + [f"ms, batch {one.batch} (iqr)" for one in quantized.rows[0].latencies]
    return head, [
        [row.name, _number(row.bytes), f"{row.top1:.2%}", f"{row.agreement:.2%}", *map(_latency, row.latencies)]
        for row in quantized.rows
    ]


def _table(quantized: Quantized) -> Iterator[str]:
    head, rows = _rows(quantized)
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _markdown(quantized: Quantized) -> Iterator[str]:
    head, rows = _rows(quantized)
    for row in [head, ["---"] * len(head), *rows]:
        yield f"| {' | '.join(row)} |"


def _verdicts(quantized: Quantized) -> Iterator[str]:
    """What int8 costs and gains beside the float file in the same runtime, also where it is slower."""
    _, whole, small = quantized.rows
    yield (
        f"int8 has {plain_number(100 * (small.top1 - whole.top1), 2, '+')} points top-1 on {quantized.images:,} "
        f"test images and {_share(small, whole)} of the bytes; {quantized.threads} threads of "
        f"{quantized.processor}."
    )
    for fast, slow in zip(small.latencies, whole.latencies, strict=True):
        yield f"int8 at batch {fast.batch}: {_speed(fast, slow)} float32 in onnxruntime."


def _speed(fast: Latency, slow: Latency) -> str:
    ratio = slow.median_ms / fast.median_ms
    told = f"{ratio:.2f} times as fast as" if ratio >= 1 else f"slower, {1 / ratio:.2f} times the time of"
    unsure = abs(slow.median_ms - fast.median_ms) < max(fast.iqr_ms, slow.iqr_ms)
    return f"no difference shown (medians differ by less than the quartiles of either), {told}" if unsure else told


def _share(small: Deployed, whole: Deployed) -> str:
    assert small.bytes is not None and whole.bytes is not None  # both are files
    return f"{small.bytes / whole.bytes:.0%}"


def _latency(latency: Latency) -> str:
    return f"{latency.median_ms:.2f} ({latency.iqr_ms:.2f})"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _values(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
