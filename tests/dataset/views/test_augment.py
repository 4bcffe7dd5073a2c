from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torchvision.transforms.v2.functional import normalize

from dataset.views.augment import apply_view, draw_view, make_generator, normalise


def make_images(count, side):
    source = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=source)


def crop_naively(image, row, column, mirrored, padding):
    """Crop one image (3, S, S) at a time, by numpy alone."""
    side = image.shape[-1]
    image = image[:, :, ::-1] if mirrored else image
    image = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    return image[:, row : row + side, column : column + side]


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    view=st.integers(0, 50),
    padding=st.integers(0, 5),
    side=st.integers(1, 9),
    flip=st.booleans(),
)
def test_views_equal_cropping_one_image_at_a_time(seed, view, padding, side, flip) -> None:
    pixels, drawn = make_images(10, side), draw_view(seed, view, 10, padding, flip)
    indices = torch.randperm(10, generator=make_generator(seed))[:7]
    cropped = apply_view(pixels[indices], indices, drawn)
    assert cropped.dtype == torch.uint8
    for out, i in zip(cropped, indices.tolist(), strict=True):
        mirrored = bool(drawn.mirrored[i])
        expected = crop_naively(pixels[i].numpy(), int(drawn.rows[i]), int(drawn.columns[i]), mirrored, padding)
        assert np.array_equal(out.numpy(), expected)


def test_an_image_is_the_same_in_any_batch() -> None:
    pixels = make_images(20, 8)
    whole = apply_view(pixels, torch.arange(20), draw_view(3, 5, 20, 2, flip=True))
    again = draw_view(3, 5, 20, 2, flip=True)
    for indices in (torch.tensor([7]), torch.tensor([19, 7, 0]), torch.arange(19, -1, -1)):
        assert torch.equal(apply_view(pixels[indices], indices, again), whole[indices])


@pytest.mark.parametrize(("seed", "view"), [(3, 6), (4, 5), (5, 3)])
def test_other_seeds_and_numbers_give_other_views(seed, view) -> None:
    first, second = draw_view(3, 5, 50, 2, flip=True), draw_view(seed, view, 50, 2, flip=True)
    for name in ("rows", "columns", "mirrored"):
        assert not torch.equal(getattr(first, name), getattr(second, name))


def test_views_of_earlier_runs_stay() -> None:
    drawn = draw_view(1, 2, 6, 4, flip=True)
    assert (drawn.rows.tolist(), drawn.columns.tolist(), drawn.mirrored.tolist()) == (
        [3, 5, 0, 8, 3, 3],
        [2, 8, 1, 7, 4, 3],
        [True, False, False, False, True, False],
    )


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    drawn = draw_view(0, 0, 50_000, 4, flip=True)
    counts = ((9 * drawn.rows + drawn.columns) * 2 + drawn.mirrored).bincount(minlength=162)
    assert len(counts) == 162  # 9 rows, 9 columns, mirrored or not
    assert chisquare(counts).pvalue > 1e-3


def test_normalise_equals_torchvision_in_float64() -> None:
    mean, std = torch.tensor([0.1, 0.5, 0.48]), torch.tensor([0.2, 0.25, 1.0])
    pixels = make_images(4, 5)
    expected = normalize(pixels.double() / 255, mean.double().tolist(), std.double().tolist())
    actual = normalise(pixels, mean, std)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)
