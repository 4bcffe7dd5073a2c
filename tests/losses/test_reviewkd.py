from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from losses.loss import Sizes
from losses.reviewkd import Fusion, ReviewKD, compute_hcl
from tests.losses.batches import SIZES, make_batch
from tests.losses.literals import draw

Array = NDArray[np.float64]


def measure_error(difference: Array, side: int) -> Array:
    """Squared error of each image's map, averaged over windows first: (B,)."""
    count, channels, own, _ = difference.shape
    step, found = own // side, np.zeros(count)
    for row in range(side):
        for column in range(side):
            window = difference[:, :, row * step : (row + 1) * step, column * step : (column + 1) * step]
            found += (window.mean(axis=(2, 3)) ** 2).sum(axis=1)
    return found / (channels * side * side)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sides", [[8, 4, 2, 1], [4, 2, 1], [2, 1], [1]])
def test_hcl_is_a_loop_over_sides(sides: list[int], weighted: bool) -> None:
    shape = 3, 2, sides[0], sides[0]
    student, teacher = draw(*shape), draw(*shape, seed=1)
    weights = torch.linspace(0, 2, 3).double() if weighted else None
    scales, expected = [1, 1 / 2, 1 / 4, 1 / 8][: len(sides)], 0.0
    for scale, side in zip(scales, sides, strict=True):
        errors = measure_error((student - teacher).numpy(), side)
        expected += scale * (errors if weights is None else errors * weights.numpy()).mean() / sum(scales)
    assert compute_hcl(student, teacher, weights).item() == pytest.approx(expected, rel=1e-10)


def test_hcl_ignores_a_common_change() -> None:
    student, teacher, common = draw(3, 2, 4, 4), draw(3, 2, 4, 4, seed=1), draw(3, 2, 4, 4, seed=2)
    torch.testing.assert_close(compute_hcl(student + common, teacher + common), compute_hcl(student, teacher))
    assert compute_hcl(student, student).item() == 0


def normalise(maps: Array, norm: nn.Module) -> Array:
    mean, variance = maps.mean(axis=(0, 2, 3), keepdims=True), maps.var(axis=(0, 2, 3), keepdims=True)
    return (maps - mean) / np.sqrt(variance + norm.eps)


def compute_convolution(maps: Array, weight: Array) -> Array:
    """A convolution (out, in, K, K) of stride 1 with zeros around, as loops."""
    count, _, side, _ = maps.shape
    outs, _, kernel, _ = weight.shape
    border = kernel // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (border, border), (border, border)))
    found = np.zeros((count, outs, side, side))
    for row in range(side):
        for column in range(side):
            window = padded[:, :, row : row + kernel, column : column + kernel]
            for out in range(outs):
                found[:, out, row, column] = (window * weight[out]).sum(axis=(1, 2, 3))
    return found


def test_fusion_is_written_as_loops() -> None:
    torch.manual_seed(0)
    fusion = Fusion(3, 2, 4, is_deepest=False).double()
    maps, deeper = draw(3, 3, 4, 4), draw(3, 4, 2, 2, seed=1)
    fused, expanded = (one.detach().numpy() for one in fusion(maps, deeper))
    weights = {name: one.detach().numpy() for name, one in fusion.named_parameters()}
    own = normalise(compute_convolution(maps.numpy(), weights["reduce.0.weight"]), fusion.reduce[1])
    expected = np.zeros_like(own)
    for row in range(4):
        for column in range(4):
            here, below = own[:, :, row, column], deeper.numpy()[:, :, row // 2, column // 2]
            both = np.concatenate([here, below], axis=1)
            scores = both @ weights["attend.0.weight"][:, :, 0, 0].T + weights["attend.0.bias"]
            shares = 1 / (1 + np.exp(-scores))
            expected[:, :, row, column] = here * shares[:, :1] + below * shares[:, 1:]
    np.testing.assert_allclose(fused, expected, rtol=1e-10, atol=1e-12)
    wanted = normalise(compute_convolution(expected, weights["expand.0.weight"]), fusion.expand[1])
    np.testing.assert_allclose(expanded, wanted, rtol=1e-9, atol=1e-12)


def test_deepest_level_reads_nothing_deeper() -> None:
    torch.manual_seed(0)
    fusion = Fusion(3, 2, 4, is_deepest=True).double()
    fused, expanded = fusion(draw(3, 3, 1, 1), draw(3, 3, 1, 1, seed=1))
    torch.testing.assert_close(fused, fusion.reduce(draw(3, 3, 1, 1)))
    torch.testing.assert_close(expanded, fusion.expand(fused))


def test_module_goes_from_deep_to_shallow() -> None:
    student, teacher, samples = batch = make_batch(0, weighted=True)
    loss = ReviewKD({"stage1": 1.0, "stage3": 2.0})
    loss.setup(SIZES)
    found = loss(*batch)
    assert list(found) == ["pooled", "stage3", "stage1"]
    means = [view.maps["stage3"].mean(dim=(2, 3), keepdim=True) for view in (student, teacher)]
    fused, expanded = loss.fusion["pooled"](means[0], means[0])
    torch.testing.assert_close(found["pooled"], compute_hcl(expanded, means[1], samples.weights))
    for tap in ("stage3", "stage1"):
        fused, expanded = loss.fusion[tap](student.maps[tap], fused)
        torch.testing.assert_close(found[tap], compute_hcl(expanded, teacher.maps[tap], samples.weights))


def test_larger_map_is_pooled() -> None:
    student, teacher, samples = batch = make_batch(0)
    loss = ReviewKD({"stage2": 1.0})
    loss.setup(SIZES)
    pooled = nn.functional.avg_pool2d(teacher.maps["stage2"], 2)  # 4 x 4, the student's is 2 x 2
    found = loss(*batch)
    mean = student.maps["stage2"].mean(dim=(2, 3), keepdim=True)
    fused, _ = loss.fusion["pooled"](mean, mean)
    _, expanded = loss.fusion["stage2"](student.maps["stage2"], fused)
    torch.testing.assert_close(found["stage2"], compute_hcl(expanded, pooled))


@pytest.mark.parametrize("taps", [("stage1", "stage2", "stage3"), ("stage3", "stage1", "stage2")])
def test_depth_follows_the_maps_size(taps: tuple[str, ...]) -> None:
    shapes = {"stage1": (2, 8, 8), "stage2": (3, 4, 4), "stage3": (600, 2, 2)}
    loss = ReviewKD(dict.fromkeys(taps, 1.0))
    loss.setup(Sizes(shapes, shapes))
    assert loss.levels == ["pooled", "stage3", "stage2", "stage1"]
    assert loss.fusion["stage1"].reduce[0].weight.shape == (512, 2, 1, 1)


def test_stages_of_one_size_are_deeper_in_order() -> None:
    loss = ReviewKD()
    loss.setup(SIZES)  # the student's last two are 2 x 2
    assert loss.levels == ["pooled", "stage3", "stage2", "stage1"]


def test_every_part_trains() -> None:
    loss = ReviewKD()
    loss.setup(SIZES)
    sum(loss(*make_batch(0)).values()).backward()
    assert all(one.grad is not None for one in loss.parameters())
