from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from dataset.loader import iter_training_batches
from dataset.views.mix import draw_cutmix, draw_mixup, draw_squares, mask_squares
from settings.images import Shortcut
from tests.dataset.small_data import list_parts, make_data

KEYS = [(3, 1, 0), (3, 1, 1), (3, 2, 0), (4, 1, 0)]


def make_mixed(mix, strength=None):
    """Return 60 images of three classes under a tint, another for the teacher."""
    return make_data(mix=mix, mix_strength=strength, shortcut=Shortcut(cue="tint", pairs="counterfactual"))


def list_batches(data, **ranks):
    return list(iter_training_batches(data, 20, 3, 1, 4, **ranks))


def match_batches(mix):
    return enumerate(zip(list_batches(make_mixed("none")), list_batches(make_mixed(mix)), strict=True))


def mix_shares(mix, labels):
    """Return the shares (B, 3) of classes that a mix gives, image by image."""
    shares = torch.zeros(len(labels), 3)
    for i, j in enumerate(mix.partners.tolist()):
        shares[i, labels[i]] += mix.share
        shares[i, labels[j]] += 1 - mix.share
    return shares


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_shares_are_betas_and_partners_permuted(strength) -> None:
    drawn = [draw_mixup(16, strength, 1, 2, step) for step in range(1000)]
    assert kstest([one.share for one in drawn], "beta", args=(strength, strength)).pvalue > 1e-3
    assert all(sorted(one.partners.tolist()) == list(range(16)) for one in drawn)
    assert len({tuple(one.partners.tolist()) for one in drawn}) == 1000


@pytest.mark.parametrize(("share", "side"), [(0.1, 4), (0.25, 6), (0.9, 11), (1e-6, 1)])
def test_squares_have_their_area_anywhere_within(share, side) -> None:
    squares = draw_squares(2000, 12, share, 0, 0, 0)
    assert squares.shape == (2000, 12, 12) and (squares.sum(dim=(1, 2)) == side**2).all()
    for direction in (1, 2):
        assert (squares.any(dim=direction).sum(dim=1) == side).all()
        starts = squares.any(dim=direction).int().argmax(dim=1)
        assert set(starts.tolist()) == set(range(12 - side + 1))


def test_mixup_mixes_images_and_labels_alike() -> None:
    for step, (plain, mixed) in match_batches("mixup"):
        mixup = draw_mixup(20, 0.2, 3, 1, step)
        assert 0 < mixup.share < 1 and torch.equal(mixed.indices, plain.indices)
        for one, other in ((plain.images, mixed.images), (plain.counterfactual, mixed.counterfactual)):
            torch.testing.assert_close(other, mixup.share * one + (1 - mixup.share) * one[mixup.partners])
        torch.testing.assert_close(mixed.targets, mix_shares(mixup, plain.labels))
        assert torch.equal(mixed.labels, plain.labels) and plain.targets is plain.labels


def test_cutmix_cuts_a_box_with_its_area() -> None:
    shares = set()
    for step, (plain, mixed) in match_batches("cutmix"):
        mix = draw_cutmix(20, 12, 1.0, 3, 1, step)
        inside = torch.zeros(12, 12, dtype=torch.bool)
        inside[mix.box] = True
        shares.add(mix.share)
        assert mix.share == pytest.approx(1 - inside.double().mean().item())
        for images, seen in ((plain.images, mixed.images), (plain.teacher_images, mixed.teacher_images)):
            assert torch.equal(seen[:, :, inside], images[mix.partners][:, :, inside])
            assert torch.equal(seen[:, :, ~inside], images[:, :, ~inside])
        torch.testing.assert_close(mixed.targets, mix_shares(mix, plain.labels))
    assert len(shares) > 1


def test_uncut_boxes_have_the_area_of_their_beta() -> None:
    drawn = [draw_cutmix(4, 1000, 1.0, 0, 0, step) for step in range(2000)]
    boxes = [one for one in drawn if all(edge.start > 0 and edge.stop < 1000 for edge in one.box)]
    assert len(boxes) > 300  # most are cut at an edge
    for one in boxes:
        rows, columns = ((edge.stop - edge.start) for edge in one.box)
        assert abs(rows - columns) <= 1 and one.share == pytest.approx(1 - rows * columns / 1e6)


def test_erased_squares_are_zero_for_both_networks() -> None:
    for step, (plain, erased) in match_batches("erasing"):
        squares = draw_squares(20, 12, 0.1, 3, 1, step)
        inside = squares[:, None].expand_as(plain.images)
        for one, other in ((plain.images, erased.images), (plain.teacher_images, erased.teacher_images)):
            assert (other[inside] == 0).all() and torch.equal(other[~inside], one[~inside])
            assert torch.equal(other, mask_squares(one, squares))
        assert erased.targets is erased.labels


@pytest.mark.parametrize("mix", ["mixup", "erasing"])
def test_processes_share_each_step(mix) -> None:
    data = make_mixed(mix, 0.3)
    whole = list_batches(data)
    assert list_parts(whole) == list_parts(list_batches(data))
    for rank in (0, 1):
        for part, batch in zip(list_batches(data, rank=rank, world_size=2), whole, strict=True):
            assert torch.equal(part.images, batch.images[rank::2])
            assert torch.equal(part.targets, batch.targets[rank::2])


def test_draws_follow_seed_epoch_and_step() -> None:
    assert len({str(draw_mixup(20, 0.3, *key).partners.tolist()) for key in KEYS}) == 4
    assert len({str(draw_squares(20, 12, 0.3, *key).tolist()) for key in KEYS}) == 4


@pytest.mark.parametrize("mix", ["mixup", "erasing"])
def test_the_teachers_own_training_is_unmixed(mix) -> None:
    mixed, plain = (list_batches(make_mixed(name).select_teacher_data()) for name in (mix, "none"))
    assert list_parts(mixed) == list_parts(plain) and mixed[0].shares is None
