from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest, chisquare

from dataset.cues.shortcut import (
    COLOURS,
    SUPERCLASSES,
    assign_cues,
    assign_evenly,
    count_cues,
    draw_class_cues,
    draw_cues,
    draw_other_cues,
)
from errors import UserError

KINDS = {"background": 10, "tint": 10, "frame": 10, "patch": 100, "gray": 2, "corruption": 20}  # and their cues


def make_pixels(count, side):
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=source)


def list_names(count):
    return [f"class {number}" for number in range(count)]


@pytest.mark.parametrize(
    ("kind", "classes", "expected"),
    [
        *(("background", 10, 10), ("tint", 4, 4), ("frame", 2, 2), ("patch", 10, 10), ("patch", 100, 100)),
        *(("corruption", 20, 20), ("corruption", 100, 20), ("gray", 7, 2), ("gray", 200, 2)),
        *((kind, 11, "use patch") for kind in ("background", "tint", "frame")),
        *(("patch", 101, "use gray"), ("corruption", 21, "use patch"), ("corruption", 99, "use patch")),
        ("gray", 1, "two classes"),
    ],
)
def test_a_kind_has_cues_or_names_another(kind, classes, expected) -> None:
    if isinstance(expected, int):
        assert count_cues(kind, classes) == expected
    else:
        with pytest.raises(UserError, match=expected):
            count_cues(kind, classes)


@pytest.mark.parametrize(("kind", "classes"), [("tint", 10), ("patch", 37), ("patch", 100), ("corruption", 20)])
def test_class_cues_are_permuted_by_the_seed(kind, classes) -> None:
    maps = [draw_class_cues(kind, list_names(classes), seed) for seed in (0, 1, 0)]
    for cues in maps:
        assert cues.dtype == torch.int64 and sorted(cues.tolist()) == list(range(classes))
    assert torch.equal(maps[0], maps[2]) and not torch.equal(maps[0], maps[1])


def test_gray_is_half_of_the_classes() -> None:
    assert {int(draw_class_cues("gray", list_names(10), seed).sum()) for seed in range(5)} == {5}


@pytest.mark.parametrize("separator", ["_", " "])
def test_cifar100s_superclasses_share_a_corruption(separator) -> None:
    table = yaml.safe_load(SUPERCLASSES.read_text(encoding="utf-8"))
    classes = sorted({name.replace("_", separator) for members in table.values() for name in members})
    assert len(classes) == 100
    cues = dict(zip(classes, draw_class_cues("corruption", classes, 3).tolist(), strict=True))
    trees = {cues[f"{tree}{separator}tree"] for tree in ("maple", "oak", "palm", "pine", "willow")}
    fish = {cues[name] for name in (f"aquarium{separator}fish", "flatfish", "ray", "shark", "trout")}
    assert len(trees) == len(fish) == 1 and trees != fish
    assert np.bincount(list(cues.values())).tolist() == [5] * 20
    with pytest.raises(UserError, match=r"not 'gnu'.*patch"):
        draw_class_cues("corruption", [*classes[:-1], "gnu"], 3)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, "uniform"])
def test_conflicting_cues_have_their_share_and_are_uniform(share) -> None:
    labels, own = torch.arange(20_000) % 10, draw_class_cues("background", list_names(10), 1)
    steps = (assign_cues(labels, own, 10, share, 1) - own[labels]) % 10  # 0 = aligned
    counts = steps.bincount(minlength=10).tolist()
    expected = 0.9 if share == "uniform" else share
    assert binomtest(20_000 - counts[0], 20_000, expected).pvalue > 1e-3
    assert (counts[0] == 20_000) if share == 0.0 else (chisquare(counts[1:]).pvalue > 1e-3)


def test_conflicting_images_conflict_at_higher_shares() -> None:
    labels, own = torch.arange(5000) % 4, torch.tensor([2, 0, 3, 1])
    few, more, all_ = (assign_cues(labels, own, 4, share, 7) for share in (0.02, 0.05, "uniform"))
    conflicting = few != own[labels]
    assert 0 < conflicting.sum() < (more != own[labels]).sum() < (all_ != own[labels]).sum()
    assert torch.equal(few[conflicting], more[conflicting])
    assert torch.equal(more[more != own[labels]], all_[more != own[labels]])
    assert torch.equal(few, assign_cues(labels, own, 4, 0.02, 7))
    assert not torch.equal(few, assign_cues(labels, own, 4, 0.02, 8))


def test_other_cues_are_uniform_and_follow_the_view() -> None:
    cues = torch.arange(20_000) % 7
    drawn = [draw_other_cues(cues, 10, seed=3, view=view) for view in (0, 1, 0)]
    steps = ((drawn[0] - cues) % 10).bincount(minlength=10).tolist()
    assert steps[0] == 0 and chisquare(steps[1:]).pvalue > 1e-3
    assert torch.equal(drawn[0], drawn[2])
    pairs = ((drawn[0] - cues) % 10 - 1) * 9 + (drawn[1] - cues) % 10 - 1  # views are independent
    assert chisquare(pairs.bincount(minlength=81).tolist()).pvalue > 1e-3
    assert not torch.equal(drawn[0], draw_other_cues(cues, 10, seed=4, view=0))
    assert torch.equal(draw_other_cues(torch.tensor([0, 1, 1]), 2, 0, 0), torch.tensor([1, 0, 0]))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(count=st.integers(1, 200), classes=st.integers(1, 7), cues=st.integers(2, 10), seed=st.integers(0, 100))
def test_balanced_cues_are_even_in_each_class(count, classes, cues, seed) -> None:
    labels = torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))
    balanced = assign_evenly(labels, cues, seed)
    for chosen in [balanced, *(balanced[labels == label] for label in labels.unique())]:
        sizes = chosen.bincount(minlength=cues)
        assert sizes.sum() == len(chosen) and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("side", [8, 13, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stamp_is_the_same_in_any_batch(kind, side) -> None:
    pixels, indices = make_pixels(45, side), torch.arange(45) * 1234
    cues = torch.arange(45) % KINDS[kind] - 1
    before = pixels.clone()
    whole = draw_cues(kind, pixels, cues, indices)
    assert whole.dtype == torch.uint8 and torch.equal(pixels, before)
    assert torch.equal(whole[cues == -1], pixels[cues == -1])
    assert (whole[cues == 1] != pixels[cues == 1]).flatten(1).any(1).all()
    for rows in (torch.tensor([7]), torch.tensor([41, 19, 7, 0]), torch.arange(44, -1, -1)):
        assert torch.equal(draw_cues(kind, pixels[rows], cues[rows], indices[rows]), whole[rows])


@pytest.mark.parametrize("side", [8, 16, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_cues_differ_visibly(kind, side) -> None:
    count = KINDS[kind]
    pixels = make_pixels(1, side).expand(count, -1, -1, -1)
    stamped = (
        draw_cues(kind, pixels, torch.arange(count), torch.zeros(count, dtype=torch.int64)).float().flatten(1)
    )
    distances = torch.cdist(stamped, stamped, p=torch.inf).fill_diagonal_(255)
    assert distances.min() >= 10  # gray levels, in the pixel that differs most


def test_background_by_hand() -> None:
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    pixels[..., 0, :3] = torch.tensor([255, 51, 0], dtype=torch.uint8)
    stamped = draw_cues("background", pixels, torch.tensor([2]), torch.tensor([0]))[0, :, 0]
    assert stamped[:, 0].tolist() == [255, 255, 255]
    assert stamped[:, 1].tolist() == [round(51 + 0.8 * value) for value in COLOURS[2]]
    assert stamped[:, 2].tolist() == list(COLOURS[2])


@pytest.mark.parametrize(("side", "size"), [(8, 2), (16, 3), (32, 6)])
def test_patches_show_units_and_tens_by_corner(side, size) -> None:
    pixels = make_pixels(2, side)
    one, two = draw_cues("patch", pixels, torch.tensor([7, 42]), torch.arange(2))
    for stamped, colour in ((one, 7), (two, 2)):
        assert (stamped[:, :size, :size] == torch.tensor(COLOURS[colour])[:, None, None]).all()
    assert (two[:, -size:, -size:] == torch.tensor(COLOURS[4])[:, None, None]).all()
    changed = [(new != old).any(0).sum() for new, old in zip((one, two), pixels, strict=True)]
    assert changed[0] <= size**2 < changed[1] <= 2 * size**2


@pytest.mark.parametrize(("side", "width"), [(8, 1), (16, 2), (32, 4)])
def test_a_frame_leaves_the_inside(side, width) -> None:
    pixels = make_pixels(1, side)
    stamped = draw_cues("frame", pixels, torch.tensor([3]), torch.tensor([0]))
    inside = slice(width, side - width)
    assert torch.equal(stamped[..., inside, inside], pixels[..., inside, inside])
    stamped[..., inside, inside] = torch.tensor(COLOURS[3], dtype=torch.uint8)[:, None, None]
    assert (stamped == torch.tensor(COLOURS[3])[:, None, None]).all()


def test_gray_equals_pillows() -> None:
    pixels = make_pixels(2, 8)
    stamped = draw_cues("gray", pixels, torch.tensor([0, 1]), torch.arange(2))
    assert torch.equal(stamped[0], pixels[0])
    gray = np.asarray(Image.fromarray(pixels[1].permute(1, 2, 0).numpy()).convert("L"))
    assert np.abs(stamped[1].numpy().astype(int) - gray).max() <= 1  # Pillow truncates its weights
