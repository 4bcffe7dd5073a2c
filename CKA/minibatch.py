"""CKA between all layers of two networks in one pass (Nguyen et al. 2021).

HSIC_1 is unbiased for any number of samples, so its mean over batches estimates the same quantity as HSIC_1
of the whole set, in the memory of one batch. For one batch, HSIC_1(K, L) = <U(K), U(L)> / (m (m-3)), where U
zeroes the diagonal and the row and column sums (Szekely and Rizzo 2014): all pairs of layers are one matrix
product of the flattened U's.

Letters: m samples of a batch, D dimension, Lx and Ly layers of the two networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from CKA.cka import MIN_SAMPLES, RELATIVE_ZERO, check_shapes, remove_mean


@dataclass(frozen=True)
class SimilarityMatrix:
    """CKA of each layer of X (rows) with each layer of Y (columns).

    An entry is None where it is not defined; `notes["values"]` then says why.
    """

    values: list[list[float | None]]
    n: int
    batches: int
    notes: dict[str, str] = field(default_factory=dict)


class MinibatchCKA:
    """Linear CKA between every layer of X and every layer of Y, accumulated over batches.

        cka = MinibatchCKA()
        for images in batches:
            cka.update(teacher_features(images), student_features(images))
        matrix = cka.compute()

    Feed both networks the same shuffled batches; the estimate nears `compute_linear_cka` as the number of samples
    grows. Batches are weighted by their size, which for equal sizes is the paper's mean. A batch of fewer
    than 4 samples is left out and counted in `notes["n"]`.
    """

    def __init__(self) -> None:
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None  # (Lx, Ly), (Lx,), (Ly,): batch sums of m HSIC_1
        self._n = 0
        self._batches = 0
        self._left_out = 0

    def update(self, X_layers: Sequence[Tensor], Y_layers: Sequence[Tensor]) -> None:
        """Add a batch: Lx and Ly features (m, D) of m samples; D may differ by layer.

        Raises ValueError for features that are not matrices, unequal m, or a changed number of layers.
        """
        if not X_layers or not Y_layers:
            raise ValueError("give at least one layer of each network")
        for layer in (*X_layers, *Y_layers):
            check_shapes(X_layers[0], layer)
        if self._sums is None:
            zeros = torch.zeros(len(X_layers), len(Y_layers), dtype=torch.float64, device=X_layers[0].device)
            self._sums = zeros, zeros.sum(1), zeros.sum(0)
        cross, own_x, own_y = self._sums
        if cross.shape != (len(X_layers), len(Y_layers)):
            raise ValueError(f"layers must stay {tuple(cross.shape)}, got {(len(X_layers), len(Y_layers))}")
        m = len(X_layers[0])
        if m < MIN_SAMPLES:
            self._left_out += m
            return
        U = torch.stack([_compute_centred_gram(layer) for layer in X_layers])  # (Lx, m * m)
        V = torch.stack([_compute_centred_gram(layer) for layer in Y_layers])  # (Ly, m * m)
        cross += U @ V.T / (m - 3)
        own_x += U.square().sum(1) / (m - 3)
        own_y += V.square().sum(1) / (m - 3)
        self._n += m
        self._batches += 1

    def compute(self) -> SimilarityMatrix:
        """Return the matrix so far, (Lx, Ly) values in [-1, 1], or an empty one."""
        if self._sums is None:
            return SimilarityMatrix([], 0, 0, {"values": "No batch was given."})
        cross, own_x, own_y = (total.cpu() for total in self._sums)
        cka = cross / own_x.sqrt()[:, None] / own_y.sqrt()
        values = [[number if math.isfinite(number) else None for number in row] for row in cka.tolist()]
        notes = {}
        if any(number is None for row in values for number in row):
            notes["values"] = _explain_undefined(self._batches, own_x, own_y)
        if self._left_out:
            notes["n"] = f"{self._left_out} samples in batches of fewer than {MIN_SAMPLES} were left out."
        return SimilarityMatrix(values, self._n, self._batches, notes)


def _compute_centred_gram(X: Tensor) -> Tensor:
    """Return the U-centred Gram matrix of X (m, D) as (m * m,), 0 without spread."""
    m = len(X)
    X = remove_mean(X)
    K = (X @ X.T).fill_diagonal_(0)
    rows = K.sum(1) / (m - 2)
    U = (K - rows[:, None] - rows + rows.sum() / (m - 1)).fill_diagonal_(0)
    return (U * (U.square().sum() > RELATIVE_ZERO * K.square().sum())).flatten()


def _explain_undefined(batches: int, own_x: Tensor, own_y: Tensor) -> str:
    if batches == 0:
        return f"The unbiased HSIC needs a batch of {MIN_SAMPLES} samples or more."
    parts = []
    for name, own in (("X", own_x), ("Y", own_y)):
        if flat := torch.nonzero(own == 0).flatten().tolist():
            parts.append(f"The samples do not differ in {name} layers {flat}.")
        if broken := torch.nonzero(~own.isfinite()).flatten().tolist():
            parts.append(f"NaN or infinite numbers in {name} layers {broken}.")
    return " ".join(parts)
