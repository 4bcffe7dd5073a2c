"""The model card beside an export, and the lines that the terminal shows of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from diagnostics.cost import Latency
from diagnostics.export.checks import PIXEL_TOLERANCE, CheckedFile, CheckedScript
from diagnostics.export.folder import METADATA, PREPROCESSING, SCRIPT
from diagnostics.export.quantize import QUANTIZED, Quantized
from diagnostics.seeds import format_number
from models.export import ONNX, PROGRAM, WEIGHTS

CONTENTS = {
    WEIGHTS: "plain state dict; preprocessing is yours",
    PROGRAM: "torch.export program, preprocessing inside",
    ONNX: "ONNX, preprocessing inside",
}


@dataclass(frozen=True)
class Export:
    """The files of an export and how they compare with the model."""

    folder: Path
    metadata: dict[str, Any]
    checks: list[CheckedFile]
    script: CheckedScript | None  # None where the run's images are not in files
    quantized: Quantized | None


def summarise_export(exported: Export) -> Iterator[str]:
    """Yield what the terminal shows."""
    for file in exported.checks:
        yield f"{exported.folder / file.file}: {_format_check(file)}"
    if exported.script is not None:
        yield f"{exported.folder / SCRIPT}: {_format_script(exported.script)}"
    if exported.quantized is not None:
        yield f"{exported.folder / QUANTIZED}: {_render('int8.md.j2', exported).rstrip()}"
    yield f"{exported.folder}: model card README.md, {METADATA}, {PREPROCESSING}, {SCRIPT}"


def format_card(exported: Export) -> str:
    """Return the model card as Markdown."""
    return _render("card.md.j2", exported)


def _render(name: str, exported: Export) -> str:
    environment = Environment(  # no HTML, so nothing is escaped
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    helpers = {"format_check": _format_check, "format_script": _format_script, "compare_int8": _compare_int8}
    values = {**exported.metadata, **vars(exported), "contents": CONTENTS}
    return environment.get_template(name, globals=helpers).render(values)


def _format_check(file: CheckedFile) -> str:
    if file.difference is None or file.agreement is None:
        return file.note
    return f"largest difference in logits {file.difference:.2g}, agreement {file.agreement:.1%}"


def _format_script(script: CheckedScript) -> str:
    return (
        f"{script.count} test files, largest difference of pixels {script.levels} of 255 (up to {PIXEL_TOLERANCE} "
        f"is rounding), in logits {script.difference:.2g}, agreement {script.agreement:.1%}"
    )


def _compare_int8(quantized: Quantized) -> Iterator[str]:
    """Compare int8 with the float file in the same runtime."""
    _, float32, int8 = quantized.rows
    assert int8.bytes is not None and float32.bytes is not None  # both are files
    points = format_number(100 * (int8.top1 - float32.top1), 2, "+")
    yield f"int8 has {points} points top-1 and {int8.bytes / float32.bytes:.0%} of the bytes."
    for fast, slow in zip(int8.latencies, float32.latencies, strict=True):
        yield f"int8 at batch {fast.batch}: {_compare_speed(fast, slow)} float32 in onnxruntime."


def _compare_speed(fast: Latency, slow: Latency) -> str:
    ratio = slow.median_ms / fast.median_ms
    speed = f"{ratio:.2f} times as fast as" if ratio >= 1 else f"slower, {1 / ratio:.2f} times the time of"
    is_unsure = abs(slow.median_ms - fast.median_ms) < max(fast.iqr_ms, slow.iqr_ms)
    return f"no difference shown (medians differ by less than their quartiles), {speed}" if is_unsure else speed
