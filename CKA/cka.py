"""Linear and RBF centered kernel alignment (Kornblith et al. 2019), exact.

CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), with the unbiased estimator HSIC_1 of Song et al. (2012) in
each place. K and L are the Gram matrices with a zeroed diagonal:

    HSIC_1 = [ tr(KL) + 1'K1 1'L1 / ((N-1)(N-2)) - 2/(N-2) 1'KL1 ] / (N (N-3))

so all it asks of a kernel are the traces tr(KL), tr(KK), tr(LL) and the row sums K1 and L1: no Gram matrix
is ever held whole.

Letters: N samples, D dimension, b rows of a block, K (N, N) and L (N, N) kernels of X and Y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MIN_SAMPLES = 4  # HSIC_1 divides by N - 3
RELATIVE_ZERO = 1e-12  # an HSIC this small beside its own terms is their rounding error
PAIRS_FROM = 2000  # samples that the median distance is taken from: two million pairs


@dataclass(frozen=True)
class Similarity:
    """A CKA value in [-1, 1], 1 for equal up to rotation and scale, about 0 for unrelated features.

    `value` is None where it is not defined; `notes["value"]` then says why.
    """

    value: float | None
    n: int
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _KernelSums:
    """Terms of HSIC_1 of two kernels with zeroed diagonals."""

    tr_kl: Tensor  # ()
    tr_kk: Tensor  # ()
    tr_ll: Tensor  # ()
    k_rows: Tensor  # (N,), K1
    l_rows: Tensor  # (N,), L1


def compute_linear_cka(X: Tensor, Y: Tensor) -> Similarity:
    """Compute exact linear CKA of X (N, D1) and Y (N, D2) in O(N D1 D2) time.

    Any dtype, computed in float64 on the tensors' device (a device without float64 needs `.cpu()` first). The
    value does not change under rotation, shift, or one common scaling of X or of Y. Undefined (`value` None)
    for fewer than 4 samples, features that are the same for all samples, and NaN or infinite features.
    Raises ValueError if the shapes do not fit.
    """
    check_shapes(X, Y)
    if len(X) < MIN_SAMPLES:
        return _refuse_few(len(X))
    X, Y = remove_mean(X), remove_mean(Y)
    # With K = XX' - diag(a) and L = YY' - diag(b), where a_i = |x_i|^2 and b_i = |y_i|^2:
    #   tr(KL)         = ||X'Y||_F^2 - a'b                 products in feature space, D1 x D2
    #   1'K1 and 1'L1  = -sum(a) and -sum(b)               X'1 = 0 after centring, so K1 = X(X'1) - a = -a
    #   1'KL1          = (K1)'(L1) = a'b
    # Centring itself is free: HSIC_1 does not see a constant added to the features.
    a, b = X.square().sum(1), Y.square().sum(1)  # (N,), (N,)
    sums = _KernelSums(
        tr_kl=_compute_product_norm(X, Y) - a @ b,
        tr_kk=_compute_product_norm(X, X) - a @ a,
        tr_ll=_compute_product_norm(Y, Y) - b @ b,
        k_rows=-a,
        l_rows=-b,
    )
    return _compute_similarity(sums)


def compute_rbf_cka(X: Tensor, Y: Tensor, bandwidth: float = 0.8, block: int = 512, seed: int = 0) -> Similarity:
    """Compute exact CKA of X (N, D1) and Y (N, D2) with Gaussian kernels.

    The kernels are exp(-|x_i - x_j|^2 / (2 sigma^2)). Memory is O(block N), time O(N^2 (D1 + D2)). `bandwidth` >
    0 is sigma as a fraction of the median distance between two samples, taken for X and Y apart, from all pairs
    of at most 2,000 samples drawn with `seed` (the kernels themselves are over all samples). `block` is the
    number of rows of the kernels held at a time. Besides the cases of `compute_linear_cka`, undefined if half of
    all pairs coincide.
    """
    return compute_rbf_cka_with_each(X, [Y], bandwidth, block, seed)[0]


def compute_rbf_cka_with_each(
    X: Tensor, others: Sequence[Tensor], bandwidth: float = 0.8, block: int = 512, seed: int = 0
) -> list[Similarity]:
    """Compute `compute_rbf_cka` of X with each Y, the kernel of X made once."""
    for Y in others:
        check_shapes(X, Y)
    if not (bandwidth > 0 and math.isfinite(bandwidth)) or block < 1:
        raise ValueError(f"bandwidth and block must be positive, got {bandwidth} and {block}")
    if len(X) < MIN_SAMPLES:
        return [_refuse_few(len(X)) for _ in others]
    X, *others = (remove_mean(features) for features in (X, *others))
    sigma_x, *sigmas = (bandwidth * _compute_median_distance(features, seed) for features in (X, *others))
    refused = [_refuse_coinciding(len(X), sigma_x, sigma) for sigma in sigmas]
    # The RBF of the scaled features has sigma 1.
    scaled = [Y / sigma for Y, sigma, none in zip(others, sigmas, refused, strict=True) if none is None]
    sums = iter(_sum_rbf(X / sigma_x, scaled, block) if scaled else ())
    return [none or _compute_similarity(next(sums)) for none in refused]


def check_shapes(X: Tensor, Y: Tensor) -> None:
    """Raise ValueError unless X and Y are two matrices with the same number of rows."""
    if X.ndim != 2 or Y.ndim != 2:
        raise ValueError(
            f"features must be (N, D): pool or flatten(1) them first, got {tuple(X.shape)} and {tuple(Y.shape)}"
        )
    if len(X) != len(Y):
        raise ValueError(f"X and Y must hold the same samples in the same order, got {len(X)} and {len(Y)} rows")


def _refuse_few(n: int) -> Similarity:
    return Similarity(None, n, {"value": f"The unbiased HSIC needs {MIN_SAMPLES} samples or more."})


def _refuse_coinciding(n: int, sigma_x: float, sigma_y: float) -> Similarity | None:
    """Return no CKA where half of all pairs coincide; None where there is one."""
    which = " and ".join(name for name, sigma in (("X", sigma_x), ("Y", sigma_y)) if sigma == 0)
    if not which:
        return None
    return Similarity(None, n, {"value": f"The median distance between samples of {which} is 0."})


def remove_mean(X: Tensor) -> Tensor:
    """Return X (N, D) in float64 with column means 0, exactly 0 without spread."""
    X = X.detach().to(torch.float64)
    X = X - X[0]
    return X - X.mean(0)


def _compute_product_norm(X: Tensor, Y: Tensor, columns: int = 1024) -> Tensor:
    """Return ||X'Y||_F^2, some columns of X at a time, never D1 x D2."""
    return torch.stack([(part.T @ Y).square().sum() for part in X.split(columns, dim=1)]).sum()


def _compute_median_distance(X: Tensor, seed: int) -> float:
    if len(X) > PAIRS_FROM:
        chosen = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:PAIRS_FROM]
        X = X[chosen.to(X.device)]
    return float(torch.pdist(X).median())


def _sum_rbf(X: Tensor, others: Sequence[Tensor], block: int) -> list[_KernelSums]:
    """Sum over kernels of X and each Y by blocks of rows, from the diagonal on."""
    n = len(X)
    rows = X.new_zeros(1 + len(others), n)  # of K, and of each L
    own = X.new_zeros(1 + len(others))  # tr(KK), and tr(LL) of each
    shared = X.new_zeros(len(others))  # tr(KL) of each
    for start in range(0, n, block):
        K = _compute_rbf_rows(X, start, block)  # (b, n - start)
        for number, features in enumerate((X, *others)):
            L = _compute_rbf_rows(features, start, block) if number else K
            stop = start + len(L)
            rows[number, start:stop] += L.sum(1)
            rows[number, stop:] += L[:, stop - start :].sum(0)
            own[number] += _sum_trace(L, L)
            if number:
                shared[number - 1] += _sum_trace(K, L)
    return [
        _KernelSums(shared[number], own[0], own[1 + number], rows[0], rows[1 + number])
        for number in range(len(others))
    ]


def _compute_rbf_rows(X: Tensor, start: int, block: int) -> Tensor:
    """Return a block of kernel rows from column `start` on, with a zero diagonal."""
    rows, columns = X[start : start + block], X[start:]
    norms = columns.square().sum(1)
    squared = torch.addmm(norms, rows, columns.T, alpha=-2) + norms[: len(rows), None]  # (b, n - start)
    return squared.clamp_(min=0).mul_(-0.5).exp_().fill_diagonal_(0)


def _sum_trace(K: Tensor, L: Tensor) -> Tensor:
    """Return the part of tr(KL) in rows (b, n - start) and, by symmetry, columns."""
    b = len(K)
    twice: Tensor = 2 * torch.tensordot(K, L) - torch.tensordot(K[:, :b], L[:, :b])
    return twice


def _compute_hsic(trace: Tensor, k_rows: Tensor, l_rows: Tensor) -> float:
    """Return HSIC_1 (Song et al. 2012) from tr(KL), K1 (N,) and L1 (N,)."""
    n = len(k_rows)
    product_of_sums = k_rows.sum() * l_rows.sum() / ((n - 1) * (n - 2))
    return float((trace + product_of_sums - 2 / (n - 2) * (k_rows @ l_rows)) / (n * (n - 3)))


def _compute_similarity(sums: _KernelSums) -> Similarity:
    n = len(sums.k_rows)
    xy = _compute_hsic(sums.tr_kl, sums.k_rows, sums.l_rows)
    xx = _compute_hsic(sums.tr_kk, sums.k_rows, sums.k_rows)
    yy = _compute_hsic(sums.tr_ll, sums.l_rows, sums.l_rows)
    if not all(math.isfinite(number) for number in (xy, xx, yy)):
        return Similarity(None, n, {"value": "The features hold NaN or infinite numbers."})
    own = (("X", xx, float(sums.tr_kk)), ("Y", yy, float(sums.tr_ll)))
    flat = [name for name, hsic, trace in own if hsic <= RELATIVE_ZERO * abs(trace) / (n * (n - 3))]
    if flat:
        return Similarity(None, n, {"value": f"The samples do not differ in {' and '.join(flat)}."})
    return Similarity(xy / math.sqrt(xx) / math.sqrt(yy), n)
