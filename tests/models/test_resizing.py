from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset.files.decode import to_array
from models.resizing import resize_pixels

EDGES = st.integers(1, 120)


def make_picture(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * height + width)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("resize", ["squash", "crop"])
@settings(max_examples=60, deadline=None)
@given(height=EDGES, width=EDGES, side=st.integers(1, 40))
def test_resizing_is_pillows_up_to_one_level(resize, height, width, side) -> None:
    pixels = make_picture(height, width)
    wanted = to_array(Image.fromarray(pixels[0].permute(1, 2, 0).numpy()), side, resize=resize)
    difference = np.abs(resize_pixels(pixels, side, resize)[0].numpy() - wanted)
    assert difference.max() <= 2  # one a pass, at ties in fixed point


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_resizing_is_pillows_away_from_ties(resize) -> None:
    pixels = make_picture(211, 157)
    wanted = to_array(Image.fromarray(pixels[0].permute(1, 2, 0).numpy()), 32, resize=resize)
    assert (resize_pixels(pixels, 32, resize)[0].numpy() != wanted).mean() < 0.002


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_pixels_of_the_right_size_stay(resize) -> None:
    pixels = torch.cat([make_picture(9, 9), make_picture(9, 9).flip(2)])
    assert torch.equal(resize_pixels(pixels, 9, resize), pixels.float())
