"""Of dataset/loader.py, and dataset/images.py, dataset/prepare.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset.cues.shortcut import COLOURS, draw_cues
from dataset.files import stored_pixels
from dataset.loader import count_batches, iter_imageless_batches, iter_training_batches, iter_view_batches
from dataset.prepare import compute_channel_statistics
from dataset.views.augment import apply_view, draw_view, normalise
from errors import UserError
from settings.images import Shortcut
from tests.dataset.small_data import make_data, make_images

PALETTE = torch.tensor(COLOURS, dtype=torch.uint8)


def make_planted(cue="background", val=0, **options):
    """Return 60 training and 9 test images of three classes under a cue."""
    return make_data(val=val, crop=3, shortcut=Shortcut(cue=cue, **({"conflicting": 0.2} | options)))


def list_orders(data, *args, **ranks):
    orders = [batch.indices.tolist() for batch in iter_training_batches(data, *args, **ranks)]
    assert orders == [batch.indices.tolist() for batch in iter_imageless_batches(data, *args, **ranks)]
    return orders


def restore_pixels(images, data):
    scaled = images * data.std[:, None, None] + data.mean[:, None, None]
    return (scaled * 255).round().to(torch.uint8)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    data = make_data(22)
    assert list_orders(data, 5, 3, 1, 0) == list_orders(data, 5, 3, 1, 9)  # whatever the view
    assert list_orders(data, 5, 3, 1, 0)[2:] == list_orders(data, 5, 3, 1, 0, first=2)
    assert len({str(list_orders(data, 5, *key, 0)) for key in ((3, 1), (3, 2), (4, 1), (1, 3))}) == 4


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 22), (5, 4), (11, 2), (22, 1), (100, 1)])
def test_batches_are_whole_and_images_unique(batch_size, steps) -> None:
    batches = list_orders(make_data(22), batch_size, 0, 0, 0)
    seen = sum(batches, [])
    assert len(batches) == steps == count_batches(22, batch_size)
    assert len(seen) == len(set(seen)) == steps * min(batch_size, 22)
    assert {len(batch) for batch in batches} == {min(batch_size, 22)}


def test_drawn_classes_are_equally_frequent() -> None:
    images = make_images(60)
    labels = np.array([0] * 40 + [1] * 15 + [2] * 5)
    data = replace(make_data(replace(images, labels=labels)), draws_classes=True)
    orders = [sum(list_orders(data, 4, 3, epoch, 0), []) for epoch in range(20)]
    for order in orders:
        found = np.bincount(order, minlength=60)
        assert [found[labels == label].sum() for label in range(3)] == [20, 20, 20]
        assert found[:40].max() == 1 and set(found[40:55]) == {1, 2} and set(found[55:]) == {4}
    assert len({str(order) for order in orders}) == 20 and orders[3] == sum(list_orders(data, 4, 3, 3, 0), [])
    whole = list_orders(data, 6, 3, 1, 0)
    assert [part for batch in whole for part in batch[1::2]] == sum(
        list_orders(data, 6, 3, 1, 0, rank=1, world_size=2), []
    )
    assert list_orders(data, 6, 3, 1, 0, first=4) == whole[4:]


def test_ranks_share_each_global_batch() -> None:
    data = make_data(22)
    whole = list_orders(data, 6, 3, 1, 0)
    ranks = [list_orders(data, 6, 3, 1, 0, rank=rank, world_size=3) for rank in range(3)]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert [len(part) for part in parts] == [2, 2, 2]
        assert sorted(sum(parts, [])) == sorted(batch)


@pytest.mark.parametrize("has_channels_last", [False, True])
def test_batches_hold_the_view_of_their_images(has_channels_last) -> None:
    images = make_images(22, 6)
    if has_channels_last:
        pixels = np.ascontiguousarray(images.pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        images = replace(images, pixels=pixels)
    data = make_data(images, side=6, seed=5)
    for batch in iter_training_batches(data, 5, seed=3, epoch=1, view=4):
        pixels = torch.from_numpy(images.pixels)[batch.indices]
        cropped = apply_view(pixels, batch.indices, draw_view(5, 4, 22, 2, flip=True))
        assert torch.equal(batch.images, normalise(cropped, data.mean, data.std))
        assert batch.labels.tolist() == images.labels[batch.indices].tolist() and batch.view == 4


def test_measuring_batches_are_in_order_and_not_augmented() -> None:
    data, images = make_data(test=7), make_images(7, seed=2)
    batches = list(data.test.iter_batches(3))
    assert [len(batch.labels) for batch in batches] == [3, 3, 1]
    joined = torch.cat([batch.images for batch in batches])
    assert torch.equal(joined, normalise(torch.from_numpy(images.pixels), data.mean, data.std))
    assert torch.cat([batch.labels for batch in batches]).tolist() == images.labels.tolist()
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(7))


def test_statistics_equal_numpys(monkeypatch) -> None:
    monkeypatch.setattr(stored_pixels, "PIECE", 7 * 3 * 6 * 6)  # seven images
    pixels = make_images(50, 6).pixels // np.array([1, 2, 3], dtype=np.uint8)[:, None, None]
    mean, std = compute_channel_statistics(pixels)
    expected = (pixels / 255).transpose(1, 0, 2, 3).reshape(3, -1)
    assert mean.numpy() == pytest.approx(expected.mean(axis=1), rel=1e-6)
    assert std.numpy() == pytest.approx(expected.std(axis=1), rel=1e-6)


def test_a_constant_channel_stays_finite() -> None:
    mean, std = compute_channel_statistics(np.full((2, 3, 4, 4), 51, dtype=np.uint8))
    assert std.tolist() == [1.0, 1.0, 1.0] and mean.tolist() == pytest.approx([0.2] * 3)


def test_images_are_normalised_by_config_or_statistics() -> None:
    data = make_data(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    assert data.mean.tolist() + data.std.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    images = make_data().train.load_normalised(torch.arange(60)).double()
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(images.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("cue", ["background", "tint", "frame", "patch", "corruption", "gray"])
def test_images_are_stamped_after_crop_and_flip(cue) -> None:
    data = make_planted(cue)
    seen = next(iter_training_batches(data, 20, seed=3, epoch=1, view=4))
    pixels = apply_view(data.train.load_raw(seen.indices), seen.indices, draw_view(0, 4, 60, 3, flip=True))
    cues = data.train.cues.image_cues[seen.indices]
    assert torch.equal(restore_pixels(seen.images, data), draw_cues(cue, pixels, cues, seen.indices))
    still = next(data.train.iter_batches(20))
    expected = data.train.cues.draw(data.train.load_raw(still.indices), still.indices)
    assert torch.equal(restore_pixels(still.images, data), expected)


def test_cues_change_neither_test_images_nor_normalisation() -> None:
    clean, data = make_planted("none"), make_planted("tint")
    assert data.test.cues is None
    assert torch.equal(data.test.load_normalised(torch.arange(9)), clean.test.load_normalised(torch.arange(9)))
    assert torch.equal(data.mean, clean.mean) and torch.equal(data.std, clean.std)
    assert (clean.classes_cue, clean.cue_count, clean.fingerprint) == (None, 0, clean.identity.digest)
    assert clean.select_teacher_data() is clean
    assert (sorted(data.classes_cue.tolist()), data.cue_count) == ([0, 1, 2], 3)


def test_teacher_and_students_see_their_own_cues() -> None:
    data = make_planted(students="unbiased")
    teacher = data.select_teacher_data()
    differing = 0
    pairs = zip(*(iter_training_batches(one, 20, 5, 3, 1) for one in (data, teacher)), strict=True)
    for ours, theirs in pairs:
        assert torch.equal(ours.indices, theirs.indices) and torch.equal(ours.labels, theirs.labels)
        same = data.train.cues.image_cues[ours.indices] == teacher.train.cues.image_cues[ours.indices]
        assert torch.equal((ours.images == theirs.images).flatten(1).all(1), same)
        differing += int((~same).sum())
    assert differing > 10 and teacher.train.pixels is data.train.pixels
    own = data.classes_cue[data.train.labels]
    aligned = [(images.cues.image_cues == own).float().mean() for images in (data.train, teacher.train)]
    assert aligned[0] < 0.6 < aligned[1]


def test_a_counterfactual_pair_differs_in_the_cue_alone() -> None:
    data = make_planted("patch", pairs="counterfactual")
    for batch in iter_training_batches(data, 20, seed=3, epoch=1, view=4):
        ours, theirs = restore_pixels(batch.images, data), restore_pixels(batch.teacher_images, data)
        corners = theirs[..., :2, :2]
        shown = (corners[:, None] == PALETTE[:3, :, None, None]).all(dim=(2, 3, 4)).nonzero()[:, 1]
        assert len(shown) == 20 and not (shown == data.train.cues.image_cues[batch.indices]).any()
        assert torch.equal(shown, data.draw_teacher_cues(4).image_cues[batch.indices])
        ours[..., :2, :2] = corners
        assert torch.equal(ours, theirs)


def test_a_teachers_view_ignores_the_batch() -> None:
    data = make_planted("tint", pairs="counterfactual")

    def load_view(view, for_teacher):
        return torch.cat([images for _, images in iter_view_batches(data, view, 25, for_teacher=for_teacher)])

    own, whole = load_view(4, False), load_view(4, True)
    for batch_size, seed, rank in ((20, 3, 0), (12, 5, 0), (12, 5, 1)):
        for batch in iter_training_batches(data, batch_size, seed, 1, 4, rank, world_size=2):
            assert torch.equal(batch.teacher_images, whole[batch.indices])
            assert torch.equal(batch.images, own[batch.indices])
    assert not (whole == own).flatten(1).all(1).any() and not torch.equal(whole, load_view(5, True))
    assert not torch.equal(data.draw_teacher_cues(4).image_cues, data.draw_teacher_cues(5).image_cues)


def test_unpaired_images_are_one_for_both() -> None:
    for data in (make_planted("tint"), make_planted("tint", pairs="counterfactual").select_teacher_data()):
        batch = next(iter_training_batches(data, 20, 3, 1, 4))
        assert batch.counterfactual is None and batch.teacher_images is batch.images
    balanced = make_planted("tint", val=9, pairs="counterfactual").select_balanced_data()
    assert next(iter_training_batches(balanced, 9, 0, 0, 0)).counterfactual is not None


def test_fingerprints_differ_by_cues_alone() -> None:
    def list_fingerprints(**options):
        data = make_planted(**options)
        return data.fingerprint, data.select_teacher_data().fingerprint

    biased, unbiased = list_fingerprints(), list_fingerprints(students="unbiased", teacher="unbiased")
    assert biased[0] == biased[1] and unbiased[0] == unbiased[1]
    assert list_fingerprints(students="unbiased") == (unbiased[0], biased[1])
    assert list_fingerprints(test_cues=3) == biased
    others = [list_fingerprints(**options) for options in ({"seed": 1}, {"conflicting": 0.4}, {"cue": "tint"})]
    assert len({first for first, _ in (*others, unbiased, biased)} | {make_planted().identity.digest}) == 6


def test_held_out_images_are_balanced_and_never_validate() -> None:
    data = make_planted(val=27)
    assert data.val is None and make_planted().balanced is None
    cells = data.balanced.labels * 3 + data.balanced.cues.image_cues
    assert cells.bincount().tolist() == [3] * 9
    balanced = data.select_balanced_data()
    assert balanced.train is data.balanced and len(balanced.train) == 27 and balanced.val is None
    assert balanced.fingerprint not in (data.fingerprint, data.identity.digest)
    assert balanced.select_teacher_data() is balanced
    with pytest.raises(UserError, match=r"data\.val_fraction"):
        make_planted().select_balanced_data()


def test_held_out_images_have_draws_of_their_own() -> None:
    data = make_planted(val=60)  # as many images of each class as there are to train on
    own = data.classes_cue[data.held_out.labels]
    assert 0.7 < (data.held_out.cues.image_cues == own).float().mean() < 0.95  # 0.8
    assert not torch.equal(data.held_out.cues.image_cues, data.train.cues.image_cues)
    aligned, random = make_planted(val=60, conflicting=0.0), make_planted(val=60, students="unbiased")
    assert torch.equal(aligned.held_out.cues.image_cues, own)
    assert (random.held_out.cues.image_cues == own).float().mean() < 0.6  # 1 / 3
    clean = make_planted("none", val=27)
    assert clean.held_out is clean.val and make_planted().held_out is None


def test_gray_needs_colour() -> None:
    images = make_images(9)
    gray = replace(images, pixels=np.repeat(images.pixels[:, :1], 3, axis=1))
    with pytest.raises(UserError, match="without colour"):
        make_data(gray, shortcut=Shortcut(cue="gray"))
