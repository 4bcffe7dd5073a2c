from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from dataset.files.decoded_cache import Images
from dataset.loader import training_batches
from dataset.prepare import TrainingData, prepare
from dataset.sources import Source
from dataset.views.mix import draw_cutmix, draw_mixup, draw_squares, erase
from settings.images import Data, Shortcut


def planted(mix: str, strength: float | None = None, pairs: str = "counterfactual") -> TrainingData:
    """60 images of three classes, 12 x 12, under a tint."""
    source = np.random.default_rng(0)
    part = Images(source.integers(0, 256, (60, 3, 12, 12)).astype(np.uint8), np.arange(60) % 3)
    settings = Data(image_size=12, crop=3, mix=mix, mix_strength=strength)
    given = Source(part, part.take(np.arange(0)), part, ["a", "b", "c"])
    return prepare(given, settings, torch.device("cpu"), Shortcut(cue="tint", pairs=pairs))


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_shares_are_betas_and_partners_a_permutation(strength: float) -> None:
    drawn = [draw_mixup(16, strength, 1, 2, step) for step in range(1000)]
    assert kstest([one.share for one in drawn], "beta", args=(strength, strength)).pvalue > 1e-3
    assert all(sorted(one.partners.tolist()) == list(range(16)) for one in drawn)
    assert len({tuple(one.partners.tolist()) for one in drawn}) == 1000


@pytest.mark.parametrize(("share", "side"), [(0.1, 4), (0.25, 6), (0.9, 11), (1e-6, 1)])
def test_squares_have_their_share_of_the_area_and_lie_anywhere_within(share: float, side: int) -> None:
    squares = draw_squares(2000, 12, share, 0, 0, 0)
    assert squares.shape == (2000, 12, 12) and (squares.sum(dim=(1, 2)) == side**2).all()
    for direction in (1, 2):
        assert (squares.any(dim=direction).sum(dim=1) == side).all()
        starts = squares.any(dim=direction).int().argmax(dim=1)
        assert set(starts.tolist()) == set(range(12 - side + 1))


def test_what_is_erased_is_the_mean_and_the_rest_stays() -> None:
    images = torch.randn(5, 3, 12, 12)
    squares = draw_squares(5, 12, 0.2, 0, 0, 0)
    erased = erase(images, squares)
    inside = squares[:, None].expand_as(images)
    assert (erased[inside] == 0).all() and torch.equal(erased[~inside], images[~inside])


def batches(data: TrainingData, seed: int = 3, epoch: int = 1, **ranks: int) -> list:
    return list(training_batches(data, 20, seed, epoch, 4, **ranks))


def test_both_see_the_same_mix_and_labels_are_mixed_as_images_are() -> None:
    for step, (plain, mixed) in enumerate(zip(batches(planted("none")), batches(planted("mixup")), strict=True)):
        mixup = draw_mixup(20, 0.2, 3, 1, step)
        assert 0 < mixup.share < 1 and torch.equal(mixed.indices, plain.indices)
        for i in range(20):
            j = mixup.partners[i]
            for one, other in ((plain.images, mixed.images), (plain.counterfactual, mixed.counterfactual)):
                torch.testing.assert_close(other[i], mixup.share * one[i] + (1 - mixup.share) * one[j])
            shares = torch.zeros(3)
            shares[plain.labels[i]] += mixup.share
            shares[plain.labels[j]] += 1 - mixup.share
            torch.testing.assert_close(mixed.targets[i], shares)
        assert torch.equal(mixed.labels, plain.labels) and plain.targets is plain.labels


def test_both_see_the_same_square_erased() -> None:
    pairs = zip(batches(planted("none")), batches(planted("erasing")), strict=True)
    for step, (plain, erased) in enumerate(pairs):
        squares = draw_squares(20, 12, 0.1, 3, 1, step)
        assert torch.equal(erased.images, erase(plain.images, squares))
        assert torch.equal(erased.for_teacher, erase(plain.for_teacher, squares))
        assert erased.targets is erased.labels


@pytest.mark.parametrize("mix", ["mixup", "erasing"])
def test_a_step_is_a_function_of_seed_epoch_and_step_in_however_many_processes(mix: str) -> None:
    data = planted(mix, 0.3)

    def images(found: list) -> Tensor:
        return torch.stack([batch.images for batch in found])

    whole = batches(data)
    assert torch.equal(images(whole), images(batches(data)))
    for rank in (0, 1):
        part = batches(data, rank=rank, world_size=2)
        assert torch.equal(images(part), images(whole)[:, rank::2])
        assert all(torch.equal(a.targets, b.targets[rank::2]) for a, b in zip(part, whole, strict=True))
    draw = draw_mixup if mix == "mixup" else draw_squares
    sizes = (20, 0.3) if mix == "mixup" else (20, 12, 0.3)
    keys = [(3, 1, 0), (3, 1, 1), (3, 2, 0), (4, 1, 0)]
    found = [draw(*sizes, *key) for key in keys]
    texts = {str(one.partners.tolist()) if mix == "mixup" else str(one.tolist()) for one in found}
    assert len(texts) == 4


@pytest.mark.parametrize("mix", ["mixup", "erasing"])
def test_the_teachers_own_training_is_unmixed(mix: str) -> None:
    data, plain = planted(mix).for_teacher(), planted("none").for_teacher()
    for one, other in zip(batches(data), batches(plain), strict=True):
        assert torch.equal(one.images, other.images) and one.shares is None


def test_a_box_is_cut_into_images_and_labels_by_its_area() -> None:
    shares = []
    for step, (plain, mixed) in enumerate(zip(batches(planted("none")), batches(planted("cutmix")), strict=True)):
        mix = draw_cutmix(20, 12, 1.0, 3, 1, step)
        assert mix.box is not None
        inside = torch.zeros(12, 12, dtype=torch.bool)
        inside[mix.box] = True
        shares.append(1 - inside.double().mean().item())
        assert mix.share == pytest.approx(shares[-1])
        for images, seen in ((plain.images, mixed.images), (plain.for_teacher, mixed.for_teacher)):
            assert torch.equal(seen[:, :, inside], images[mix.partners][:, :, inside])
            assert torch.equal(seen[:, :, ~inside], images[:, :, ~inside])
        for i in range(20):
            wanted = torch.zeros(3)
            wanted[plain.labels[i]] += mix.share
            wanted[plain.labels[mix.partners[i]]] += 1 - mix.share
            torch.testing.assert_close(mixed.targets[i], wanted)
    assert len(set(shares)) > 1


def test_uncut_boxes_have_the_area_of_their_beta() -> None:
    drawn = [draw_cutmix(4, 1000, 1.0, 0, 0, step) for step in range(2000)]
    boxes = [one for one in drawn if one.box and all(edge.start > 0 and edge.stop < 1000 for edge in one.box)]
    assert len(boxes) > 300  # most are cut at an edge
    for one in boxes:
        rows, columns = ((edge.stop - edge.start) for edge in one.box or ())
        assert abs(rows - columns) <= 1 and one.share == pytest.approx(1 - rows * columns / 1e6)
