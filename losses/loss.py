"""The interface of a loss: constructor (options), `setup` (sizes of both networks), `forward` (scalar terms).

A file in this folder that defines one subclass of `Loss` adds a loss with the file's name. Its options are the
keyword arguments of the constructor: types and ranges come from the signature, help from the docstring's `Args`.

Letters: B batch, N training images, C classes, D channels of a tap, H x W map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Range:
    """Bounds of a number: `ge` and `le` may be reached, `gt` and `lt` may not."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __get_pydantic_core_schema__(self, kind: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Let pydantic check the bounds, without importing it."""
        return handler(kind) | {name: bound for name, bound in vars(self).items() if bound is not None}


Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Share = Annotated[float, Range(ge=0, lt=1)]
Count = Annotated[int, Range(ge=1)]
Taps = Mapping[str, NonNegative]  # weight of the term at each tap; a tap of weight 0 is not read
BOTH_TAPS: Taps = MappingProxyType({"penultimate": 0.5, "last": 1.0})
LAST: Taps = MappingProxyType({"last": 1.0})
STAGES: Taps = MappingProxyType({"stage1": 1.0, "stage2": 1.0, "stage3": 1.0})


@dataclass(frozen=True)
class View:
    """What a loss may read of one network's outputs for a batch; the teacher's have no gradient."""

    logits: Tensor  # (B, C)
    taps: Mapping[str, Tensor]  # pooled features (B, D), by tap
    maps: Mapping[str, Tensor] = field(default_factory=dict)  # (B, D, H, W), by tap, for losses that need maps
    classifier: nn.Module | None = None  # the teacher's, frozen, for losses that need it


@dataclass(frozen=True)
class Samples:
    """Indices, classes and weights of the images of a batch."""

    indices: Tensor  # (B,) positions in the training set
    labels: Tensor  # (B,) classes
    targets: Tensor  # (B,) classes, or (B, C) shares of the classes of mixed images
    weights: Tensor | None = None  # (B,) of mean 1 over the training set, None for equal weights


class Processes(Protocol):
    """The processes that train together, each on its share of every batch."""

    def rank(self) -> int:
        """Return the number of this process."""

    def world_size(self) -> int:
        """Return the number of processes."""

    def gather(self, tensor: Tensor) -> Tensor:
        """Join the rows of all processes, without gradient."""

    def gather_with_gradient(self, tensor: Tensor) -> Tensor:
        """Join the rows of all processes, with gradient."""

    def gather_batch(self, tensor: Tensor) -> Tensor:
        """Join the rows of all processes in the order of the batch, without gradient."""


class OneProcess:
    """The only process: nothing to join."""

    def rank(self) -> int:
        return 0

    def world_size(self) -> int:
        return 1

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    gather_with_gradient = gather_batch = gather


@dataclass(frozen=True)
class Sizes:
    """Sizes of taps, labels and processes, from which a loss builds its modules."""

    student: Mapping[str, tuple[int, ...]]  # shape of each tap for one image: (D,) or (D, H, W)
    teacher: Mapping[str, tuple[int, ...]]
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))  # (N,) of training images
    processes: Processes = field(default_factory=OneProcess)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a loss keeps, and the option that changes them."""

    option: str
    what: str
    bytes: int


class Loss(nn.Module):
    """A loss of a student against its frozen teacher, or against labels.

    Its attributes declare what it reads, which decides what is computed, cached or refused. Set those that depend
    on an option in the constructor.
    """

    needs_labels: bool = False
    needs_logits: bool = False  # the student's, so its classifier gets a gradient
    needs_teacher: bool = True
    needs_classifier: bool = False  # the teacher's, which must be linear
    needs_maps: bool = False  # at its taps, not pooled features
    uses_weights: bool = True  # multiplies each image's term by its weight
    needs_connector: bool = False  # in the student (option `connector` of a stage)
    replaces_classifier: bool = (
        False  # gives logits by `predict_logits`, and the student's classifier by `fold_into`
    )
    first_pass: Literal["none", "teacher", "both"] = "none"  # networks whose views of an epoch `prepare` reads
    taps: Taps = MappingProxyType({})
    processes: Processes = OneProcess()

    @property
    def used_taps(self) -> list[str]:
        """Taps whose weight is not 0."""
        return [tap for tap, weight in self.taps.items() if weight > 0]

    def setup(self, sizes: Sizes) -> None:
        """Build projections and everything else that depends on sizes; torch is seeded before."""
        self.processes = sizes.processes

    def prepare(self, student: View, teacher: View, samples: Samples) -> None:
        """Read a batch of the first pass; `student` is the teacher's view unless `first_pass` is "both"."""

    def finish_prepare(self) -> None:
        """Finish after the last batch of the first pass."""

    def start_epoch(self) -> None:
        """Prepare for an epoch, with torch's generators seeded for it."""

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor | dict[str, Tensor]:
        """Return a scalar, or scalars by tap. A name that is not in `taps` has weight 1."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def compare(self, student: View, teacher: View) -> dict[str, float]:
        """Return measures of agreement on held-out features, by name."""
        return {}

    def predict_logits(self, student: View, teacher: View) -> Tensor:
        """Return the logits (B, C) that replace the student's."""
        return student.logits

    def fold_into(self, classifier: nn.Module, teachers: nn.Module) -> None:
        """Write the trained classifier into the student's; `teachers` is the teacher's classifier."""

    def list_projections(self) -> dict[str, Tensor]:
        """Return the linear maps that features go through before they are compared."""
        return {}

    def estimate_memory(self, sizes: Sizes, batch_size: int, device: str) -> list[MemoryNeed]:
        """Return what the loss keeps in memory on a device ("cpu", "cuda")."""
        return []


def compare_batch(
    compute: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor, processes: Processes
) -> Tensor:
    """Compare the images of a whole batch with each other, in float32.

    Args:
        compute: a scalar from features (B, D) of student and teacher.
        student: (B / processes, D), which gets a gradient.
        teacher: (B / processes, D).
        processes: the processes whose rows are joined.
    """
    own, other = processes.gather_with_gradient(student.float()), processes.gather(teacher.float())
    with torch.autocast(own.device.type, enabled=False):  # differences are smaller than bfloat16's steps
        return compute(own, other)
