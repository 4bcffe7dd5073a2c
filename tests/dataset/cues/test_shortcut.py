"""Of dataset/cues/shortcut.py, and dataset/cues/contact_sheet.py, dataset/cues/corruptions.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest, chisquare
from torch import Tensor

from dataset.cues.contact_sheet import contact_sheet, write_contact_sheet
from dataset.cues.corruptions import CORRUPTIONS, corrupt
from dataset.cues.shortcut import (
    COLOURS,
    PAINTED,
    SUPERCLASSES,
    Cues,
    assign,
    balance,
    counterfactual,
    cue_of_class,
    number_of_cues,
    stamp,
)
from dataset.files.decoded_cache import Images
from dataset.prepare import prepare
from dataset.sources import Source
from errors import UserError
from settings.images import Data, Shortcut


def images(count: int, side: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=source)


def names(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


def cues_of(kind: str) -> int:
    return {"corruption": 20, "patch": 100, "gray": 2}.get(kind, 10)


@pytest.mark.parametrize(
    ("kind", "classes", "expected"),
    [("background", 10, 10), ("tint", 4, 4), ("frame", 2, 2), ("patch", 10, 10), ("patch", 100, 100)]
    + [("corruption", 10, 10), ("corruption", 20, 20), ("corruption", 100, 20), ("gray", 7, 2), ("gray", 200, 2)],
)
def test_number_of_cues(kind: str, classes: int, expected: int) -> None:
    assert number_of_cues(kind, classes) == expected


@pytest.mark.parametrize(
    ("kind", "classes", "mend"),
    [(kind, 11, "patch") for kind in ("background", "tint", "frame")]
    + [
        ("patch", 101, "gray"),
        ("corruption", 21, "patch"),
        ("corruption", 99, "patch"),
        ("gray", 1, "two classes"),
    ],
)
def test_a_kind_that_cannot_serve_so_many_classes_names_one_that_can(kind: str, classes: int, mend: str) -> None:
    with pytest.raises(UserError, match=mend):
        number_of_cues(kind, classes)


@pytest.mark.parametrize(("kind", "classes"), [("tint", 10), ("patch", 37), ("patch", 100), ("corruption", 20)])
def test_the_map_is_a_bijection_permuted_by_the_seed(kind: str, classes: int) -> None:
    maps = [cue_of_class(kind, names(classes), seed) for seed in (0, 1, 0)]
    for cues in maps:
        assert cues.dtype == torch.int64 and sorted(cues.tolist()) == list(range(classes))
    assert torch.equal(maps[0], maps[2]) and not torch.equal(maps[0], maps[1])


def test_gray_is_half_of_the_classes() -> None:
    assert {int(cue_of_class("gray", names(10), seed).sum()) for seed in range(5)} == {5}


@pytest.mark.parametrize("separator", ["_", " "])
def test_cifar100s_classes_share_a_corruption_with_their_superclass(separator: str) -> None:
    table = yaml.safe_load(SUPERCLASSES.read_text(encoding="utf-8"))
    classes = sorted({name.replace("_", separator) for members in table.values() for name in members})
    assert len(classes) == 100
    cue_of = dict(zip(classes, cue_of_class("corruption", classes, 3).tolist(), strict=True))
    trees = {cue_of[f"{tree}{separator}tree"] for tree in ("maple", "oak", "palm", "pine", "willow")}
    fish = {cue_of[name] for name in (f"aquarium{separator}fish", "flatfish", "ray", "shark", "trout")}
    assert len(trees) == len(fish) == 1 and trees != fish
    assert np.bincount(list(cue_of.values())).tolist() == [5] * 20
    with pytest.raises(UserError, match=r"not 'gnu'.*patch"):
        cue_of_class("corruption", [*classes[:-1], "gnu"], 3)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, "uniform"])
def test_aligned_by_one_minus_r_and_uniform_among_the_others(share: float | str) -> None:
    labels, own = torch.arange(20_000) % 10, cue_of_class("background", names(10), 1)
    steps = (assign(labels, own, 10, share, 1) - own[labels]) % 10  # 0 = aligned
    counts = steps.bincount(minlength=10).tolist()
    expected = 0.9 if share == "uniform" else share
    assert binomtest(20_000 - counts[0], 20_000, expected).pvalue > 1e-3
    if share:
        assert chisquare(counts[1:]).pvalue > 1e-3
    if share == 0.0:
        assert counts[0] == 20_000


def test_an_image_that_conflicts_does_so_with_the_same_cue_wherever_more_images_do() -> None:
    labels, own = torch.arange(5000) % 4, torch.tensor([2, 0, 3, 1])
    few, more, all_ = (assign(labels, own, 4, share, 7) for share in (0.02, 0.05, "uniform"))
    conflicting = few != own[labels]
    assert 0 < conflicting.sum() < (more != own[labels]).sum() < (all_ != own[labels]).sum()
    assert torch.equal(few[conflicting], more[conflicting])
    assert torch.equal(more[more != own[labels]], all_[more != own[labels]])
    assert torch.equal(few, assign(labels, own, 4, 0.02, 7))
    assert not torch.equal(few, assign(labels, own, 4, 0.02, 8))


def test_a_counterfactual_cue_is_any_but_the_own_and_drawn_anew_each_view() -> None:
    cues = torch.arange(20_000) % 7
    drawn = [counterfactual(cues, 10, seed=3, view=view) for view in (0, 1, 0)]
    steps = ((drawn[0] - cues) % 10).bincount(minlength=10).tolist()
    assert steps[0] == 0 and chisquare(steps[1:]).pvalue > 1e-3
    assert torch.equal(drawn[0], drawn[2])
    pairs = ((drawn[0] - cues) % 10 - 1) * 9 + (drawn[1] - cues) % 10 - 1  # views know nothing of each other
    assert chisquare(pairs.bincount(minlength=81).tolist()).pvalue > 1e-3
    assert not torch.equal(drawn[0], counterfactual(cues, 10, seed=4, view=0))
    assert torch.equal(counterfactual(torch.tensor([0, 1, 1]), 2, 0, 0), torch.tensor([1, 0, 0]))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(count=st.integers(1, 200), classes=st.integers(1, 7), cues=st.integers(2, 10), seed=st.integers(0, 100))
def test_balance_is_within_one_for_each_class_and_over_all(count: int, classes: int, cues: int, seed: int) -> None:
    labels = torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))
    balanced = balance(labels, cues, seed)
    for chosen in [balanced, *(balanced[labels == label] for label in labels.unique())]:
        sizes = chosen.bincount(minlength=cues)
        assert sizes.sum() == len(chosen) and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("side", [8, 13, 32])
@pytest.mark.parametrize("kind", [*PAINTED, "corruption"])
def test_an_image_gets_the_same_pixels_in_any_batch(kind: str, side: int) -> None:
    pixels, indices = images(45, side), torch.arange(45) * 1234
    cues = torch.arange(45) % cues_of(kind)
    whole = stamp(kind, pixels, cues, indices)
    assert whole.dtype == torch.uint8 and whole.shape == pixels.shape
    for rows in (torch.tensor([7]), torch.tensor([41, 19, 7, 0]), torch.arange(44, -1, -1)):
        assert torch.equal(stamp(kind, pixels[rows], cues[rows], indices[rows]), whole[rows])


@pytest.mark.parametrize("kind", [*PAINTED, "corruption"])
def test_without_a_cue_an_image_is_left_as_it_is(kind: str) -> None:
    pixels, indices = images(6, 16), torch.arange(6)
    before, cues = pixels.clone(), torch.tensor([0, -1, 1, -1, 1, 0])
    stamped = stamp(kind, pixels, cues, indices)
    assert torch.equal(pixels, before)
    assert torch.equal(stamped[cues == -1], pixels[cues == -1])
    assert (stamped[cues == 1] != pixels[cues == 1]).flatten(1).any(1).all()


@pytest.mark.parametrize("side", [8, 16, 64])
@pytest.mark.parametrize("kind", [*PAINTED, "corruption"])
def test_cues_differ_visibly(kind: str, side: int) -> None:
    count = cues_of(kind)
    pixels = images(1, side).expand(count, -1, -1, -1)
    stamped = stamp(kind, pixels, torch.arange(count), torch.zeros(count, dtype=torch.int64)).float().flatten(1)
    distances = torch.cdist(stamped, stamped, p=torch.inf).fill_diagonal_(255)
    assert distances.min() >= 10  # gray levels, in the pixel that differs most


def test_background_by_hand() -> None:
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    pixels[..., 0, :3] = torch.tensor([255, 51, 0], dtype=torch.uint8)
    red, green, blue = COLOURS[2]
    stamped = stamp("background", pixels, torch.tensor([2]), torch.tensor([0]))[0, :, 0]
    assert stamped[:, 0].tolist() == [255, 255, 255]
    assert stamped[:, 1].tolist() == [round(51 + 0.8 * value) for value in (red, green, blue)]
    assert stamped[:, 2].tolist() == [red, green, blue]


@pytest.mark.parametrize(("side", "size"), [(8, 2), (16, 3), (32, 6)])
def test_patches_code_units_and_tens_by_corner(side: int, size: int) -> None:
    pixels = images(2, side)
    one, two = stamp("patch", pixels, torch.tensor([7, 42]), torch.arange(2))
    for stamped, colour in ((one, 7), (two, 2)):
        assert (stamped[:, :size, :size] == torch.tensor(COLOURS[colour])[:, None, None]).all()
    assert (two[:, -size:, -size:] == torch.tensor(COLOURS[4])[:, None, None]).all()
    changed = [(new != old).any(0).sum() for new, old in zip((one, two), pixels, strict=True)]
    assert changed[0] <= size**2 < changed[1] <= 2 * size**2


@pytest.mark.parametrize(("side", "width"), [(8, 1), (16, 2), (32, 4)])
def test_a_frame_leaves_the_inside(side: int, width: int) -> None:
    pixels = images(1, side)
    stamped = stamp("frame", pixels, torch.tensor([3]), torch.tensor([0]))
    inside = slice(width, side - width)
    assert torch.equal(stamped[..., inside, inside], pixels[..., inside, inside])
    stamped[..., inside, inside] = torch.tensor(COLOURS[3], dtype=torch.uint8)[:, None, None]
    assert (stamped == torch.tensor(COLOURS[3])[:, None, None]).all()


def test_gray_equals_pillows() -> None:
    pixels = images(2, 8)
    stamped = stamp("gray", pixels, torch.tensor([0, 1]), torch.arange(2))
    assert torch.equal(stamped[0], pixels[0])
    gray = np.asarray(Image.fromarray(pixels[1].permute(1, 2, 0).numpy()).convert("L"))
    assert np.abs(stamped[1].numpy().astype(int) - gray).max() <= 1  # Pillow truncates its weights


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_random_by_index_alone_and_moderate(name: str) -> None:
    side = 32
    ramp = torch.linspace(30, 220, side).to(torch.uint8).expand(3, side, side).clone()
    pixels = torch.stack([ramp] * 2)
    same = corrupt(name, pixels, torch.tensor([5, 5]))
    assert torch.equal(same[0], same[1])
    other = corrupt(name, pixels, torch.tensor([5, 6]))
    steady = {"brightness", "contrast", "jpeg", "pixelate", "saturate", "original"} | {
        f"{kind}_blur" for kind in ("gaussian", "defocus", "motion", "zoom")
    }
    assert torch.equal(other[0], other[1]) == (name in steady)
    correlation = np.corrcoef(same[0].float().flatten(), ramp.float().flatten())[0, 1]
    assert correlation > 0.7 and (name == "original") == torch.equal(same[0], ramp) or name == "saturate"


def test_jpeg_reads_back_what_its_steps_can_hold() -> None:
    flat = torch.full((1, 3, 11, 11), 128 + 6, dtype=torch.uint8)  # a DC of 48, one step of 16 x 3
    assert torch.equal(corrupt("jpeg", flat, torch.tensor([0])), flat)


def test_cues_stamp_their_images_and_nothing_of_a_file() -> None:
    pixels = images(6, 8)
    of_image = torch.tensor([0, 1, 2, 2, 1, 0])
    cues = Cues("tint", torch.arange(3), 3, of_image)
    rows = torch.tensor([4, 2])
    assert torch.equal(cues.stamp(pixels[rows], rows), stamp("tint", pixels[rows], of_image[rows], rows))
    assert torch.equal(Cues("file", torch.arange(3), 3, of_image).stamp(pixels[rows], rows), pixels[rows])


@pytest.mark.parametrize(("cue", "shown"), [("patch", 3), ("gray", 2), ("none", 0)])
def test_contact_sheet(tmp_path: Path, cue: str, shown: int) -> None:
    part = Images(images(12, 16).numpy(), np.arange(12) % 3)
    source = Source(part, part.take(np.arange(0)), part, names(3))
    data = prepare(source, Data(crop=2), torch.device("cpu"), Shortcut(cue=cue))
    sheet = contact_sheet(data)
    tile = 64 + 4  # four times enlarged, with a border of the same width
    assert sheet.dtype == torch.uint8 and sheet.shape == (3, 4 + 4 * tile, 4 + 11 * tile)
    last = sheet[:, 4 + 3 * tile :: 4, 4::4][:, :16]  # every fourth pixel of the last row's tiles
    clean = data.test.raw(torch.tensor([0]))
    assert torch.equal(last[:, :, :16], clean[0])
    for cue_number in range(shown):
        expected = stamp(cue, clean, torch.tensor([cue_number]), torch.tensor([0]))[0]
        start = (1 + cue_number) * tile // 4
        assert torch.equal(last[:, :, start : start + 16], expected)
    write_contact_sheet(data, tmp_path / "new" / "sheet.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), sheet.permute(1, 2, 0).numpy())
