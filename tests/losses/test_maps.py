from __future__ import annotations

import pytest
import torch

from losses.maps import match_sides, pool_to
from tests.losses.literals import draw


@pytest.mark.parametrize("side", [1, 2, 3, 4, 6])
def test_pooling_is_a_loop_over_windows(side: int) -> None:
    maps, found = draw(2, 3, 6, 6), pool_to(draw(2, 3, 6, 6), side)
    assert found.shape == (2, 3, side, side)
    for row in range(side):
        for column in range(side):
            rows, columns = (slice(start * 6 // side, -(-(start + 1) * 6 // side)) for start in (row, column))
            torch.testing.assert_close(found[:, :, row, column], maps[:, :, rows, columns].mean(dim=(2, 3)))


def test_larger_map_is_pooled() -> None:
    large, small = draw(2, 3, 4, 4), draw(2, 5, 2, 2)
    pooled, same = match_sides(large, small)
    assert torch.equal(pooled, pool_to(large, 2)) and same is small
    same, pooled = match_sides(small, large)
    assert torch.equal(pooled, pool_to(large, 2)) and same is small
