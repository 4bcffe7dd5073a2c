"""Of dataset/loader.py, and dataset/images.py, dataset/prepare.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.cues.shortcut import COLOURS, stamp
from dataset.files import stored_pixels
from dataset.files.decoded_cache import Images
from dataset.loader import steps_per_epoch, training_batches, view_batches
from dataset.prepare import TrainingData, channel_statistics, prepare
from dataset.sources import Source
from dataset.views.augment import apply_view, draw_view, normalise
from errors import UserError
from settings.images import Data, Shortcut

CPU = torch.device("cpu")


def some(count: int, seed: int) -> Images:
    source = np.random.default_rng(seed)
    pixels = source.integers(0, 256, (count, 3, 6, 6)).astype(np.uint8)
    return Images(pixels, source.integers(0, 3, count))


def make(train: int = 22, val: int = 0, **options: object) -> TrainingData:
    source = Source(some(train, 0), some(val, 1), some(7, 2), ["a", "b", "c"])
    return prepare(source, Data(crop=2, **options), CPU)


def planted(cue: str = "background", val: int = 0, **options: object) -> TrainingData:
    """60 training and 9 test images of three classes under a cue."""

    def part(count: int, seed: int) -> Images:
        source = np.random.default_rng(seed)
        return Images(source.integers(0, 256, (count, 3, 12, 12)).astype(np.uint8), np.arange(count) % 3)

    source = Source(part(60, 0), part(val, 1), part(9, 2), ["a", "b", "c"])
    return prepare(source, Data(crop=3), CPU, Shortcut(cue=cue, **({"conflicting": 0.2} | options)))


def orders(data: TrainingData, *args: int, **ranks: int) -> list[list[int]]:
    return [batch.indices.tolist() for batch in training_batches(data, *args, **ranks)]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    data = make()
    first = orders(data, 5, 3, 1, 0)
    assert first == orders(data, 5, 3, 1, 9)  # whatever the view
    assert len({str(orders(data, 5, *key, 0)) for key in ((3, 1), (3, 2), (4, 1), (1, 3))}) == 4


@pytest.mark.parametrize("batch_size", [1, 5, 11, 22])
def test_every_image_at_most_once_an_epoch_and_whole_batches(batch_size: int) -> None:
    batches = orders(make(), batch_size, 0, 0, 0)
    seen = sum(batches, [])
    assert len(seen) == len(set(seen)) == 22 // batch_size * batch_size
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(batches) == steps_per_epoch(22, batch_size)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    assert [sorted(batch) for batch in orders(make(), 100, 0, 0, 0)] == [list(range(22))]
    assert steps_per_epoch(22, 100) == 1


def test_ranks_share_each_global_batch() -> None:
    data = make()
    whole = orders(data, 6, 3, 1, 0)
    ranks = [orders(data, 6, 3, 1, 0, rank=rank, world_size=3) for rank in range(3)]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert [len(part) for part in parts] == [2, 2, 2]
        assert sorted(sum(parts, [])) == sorted(batch)


def test_batches_hold_the_view_of_their_images() -> None:
    data = make(seed=5)
    for batch in training_batches(data, 5, seed=3, epoch=1, view=4):
        pixels = torch.from_numpy(some(22, 0).pixels)[batch.indices]
        expected = normalise(
            apply_view(pixels, batch.indices, draw_view(5, 4, 22, 2, flip=True)), data.mean, data.std
        )
        assert torch.equal(batch.images, expected)
        assert batch.labels.tolist() == some(22, 0).labels[batch.indices].tolist()
        assert batch.view == 4


def test_the_order_in_memory_does_not_matter() -> None:
    part = some(22, 0)
    channels_last = np.ascontiguousarray(part.pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    batches = []
    for pixels in (part.pixels, channels_last):
        images = Images(pixels, part.labels)
        data = prepare(Source(images, images.take(np.arange(0)), images, ["a", "b", "c"]), Data(crop=2), CPU)
        batches.append(next(training_batches(data, 22, 0, 0, 0)).images)
    assert torch.equal(*batches)


def test_measuring_batches_are_all_images_in_order_without_augmentation() -> None:
    data = make()
    batches = list(data.test.batches(3))
    assert [len(batch.labels) for batch in batches] == [3, 3, 1]
    joined: Tensor = torch.cat([batch.images for batch in batches])
    assert torch.equal(joined, normalise(torch.from_numpy(some(7, 2).pixels), data.mean, data.std))
    assert torch.cat([batch.labels for batch in batches]).tolist() == some(7, 2).labels.tolist()
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(7))


def test_statistics_equal_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_pixels, "PIECE", 7 * 3 * 6 * 6)  # seven images
    pixels = some(50, 0).pixels // np.array([1, 2, 3], dtype=np.uint8)[:, None, None]
    mean, std = channel_statistics(pixels)
    expected = (pixels / 255).transpose(1, 0, 2, 3).reshape(3, -1)
    assert mean.numpy() == pytest.approx(expected.mean(axis=1), rel=1e-6)
    assert std.numpy() == pytest.approx(expected.std(axis=1), rel=1e-6)


def test_training_images_are_normalised_to_mean_0_and_deviation_1() -> None:
    data = make()
    images = data.train.normalised(torch.arange(22)).double()
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    std = images.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(std, torch.ones(3).double(), rtol=1e-6, atol=0)


def test_a_constant_channel_stays_finite() -> None:
    mean, std = channel_statistics(np.full((2, 3, 4, 4), 51, dtype=np.uint8))
    assert std.tolist() == [1.0, 1.0, 1.0]
    assert mean.tolist() == pytest.approx([0.2] * 3)


def test_the_configs_statistics_are_used_where_given() -> None:
    data = make(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    assert (data.mean.tolist(), data.std.tolist()) == (
        pytest.approx([0.1, 0.2, 0.3]),
        pytest.approx([0.5, 0.6, 0.7]),
    )


def test_validation_images_only_where_there_are_some() -> None:
    assert make().val is None
    assert len(make(val=4).val) == 4
    assert make().num_classes == 3


def unnormalised(images: Tensor, data: TrainingData) -> Tensor:
    scaled = images * data.std[:, None, None] + data.mean[:, None, None]
    return (scaled * 255).round().to(torch.uint8)


@pytest.mark.parametrize("cue", ["background", "tint", "frame", "patch", "corruption", "gray"])
def test_training_images_are_stamped_after_crop_and_flip(cue: str) -> None:
    data = planted(cue)
    seen = next(training_batches(data, 20, seed=3, epoch=1, view=4))
    pixels = apply_view(data.train.raw(seen.indices), seen.indices, draw_view(0, 4, 60, 3, flip=True))
    cues = data.train.cues.of_image[seen.indices]
    assert torch.equal(unnormalised(seen.images, data), stamp(cue, pixels, cues, seen.indices))
    still = next(data.train.batches(20))
    expected = data.train.cues.stamp(data.train.raw(still.indices), still.indices)
    assert torch.equal(unnormalised(still.images, data), expected)


def test_augmentation_neither_cuts_nor_mirrors_a_patch() -> None:
    data = planted("patch")
    colours = torch.tensor(COLOURS, dtype=torch.uint8)
    for view in range(3):
        for batch in training_batches(data, 20, seed=0, epoch=0, view=view):
            expected = colours[data.train.cues.of_image[batch.indices]]
            corners = unnormalised(batch.images, data)[..., :2, :2]
            assert (corners == expected[:, :, None, None]).all()


def test_test_images_and_normalisation_are_those_without_a_cue() -> None:
    clean, data = planted("none"), planted("tint")
    assert data.test.cues is None
    assert torch.equal(data.test.normalised(torch.arange(9)), clean.test.normalised(torch.arange(9)))
    assert torch.equal(data.mean, clean.mean) and torch.equal(data.std, clean.std)
    assert (clean.classes_cue, clean.cue_count, clean.fingerprint) == (None, 0, clean.identity.digest)
    assert clean.for_teacher() is clean
    assert (sorted(data.classes_cue.tolist()), data.cue_count) == ([0, 1, 2], 3)


def test_teacher_and_students_see_the_same_images_in_the_same_order_under_their_own_cues() -> None:
    data = planted(students="unbiased")
    teacher = data.for_teacher()
    differing = 0
    for ours, theirs in zip(
        training_batches(data, 20, 5, 3, 1), training_batches(teacher, 20, 5, 3, 1), strict=True
    ):
        assert torch.equal(ours.indices, theirs.indices) and torch.equal(ours.labels, theirs.labels)
        same = data.train.cues.of_image[ours.indices] == teacher.train.cues.of_image[ours.indices]
        assert torch.equal((ours.images == theirs.images).flatten(1).all(1), same)
        differing += int((~same).sum())
    assert differing > 10
    assert teacher.train.pixels is data.train.pixels
    own = data.classes_cue[data.train.labels]
    aligned = [(images.cues.of_image == own).float().mean() for images in (data.train, teacher.train)]
    assert aligned[0] < 0.6 < aligned[1]


def test_a_counterfactual_pair_differs_where_the_cue_is_drawn_and_nowhere_else() -> None:
    data = planted("patch", pairs="counterfactual")
    palette = torch.tensor(COLOURS, dtype=torch.uint8)
    for batch in training_batches(data, 20, seed=3, epoch=1, view=4):
        ours, theirs = unnormalised(batch.images, data), unnormalised(batch.for_teacher, data)
        corners = theirs[..., :2, :2]
        shown = (corners[:, None] == palette[:3, :, None, None]).all(dim=(2, 3, 4)).nonzero()[:, 1]
        assert len(shown) == 20 and not (shown == data.train.cues.of_image[batch.indices]).any()
        assert torch.equal(shown, data.other_cues(4).of_image[batch.indices])
        ours[..., :2, :2] = corners
        assert torch.equal(ours, theirs)


def test_what_the_teacher_sees_of_a_view_is_the_same_in_any_batch() -> None:
    data = planted("tint", pairs="counterfactual")
    whole = torch.cat([images for _, images in view_batches(data, 4, 25, for_teacher=True)])
    own = torch.cat([images for _, images in view_batches(data, 4, 25)])
    for batch_size, seed, rank in ((20, 3, 0), (12, 5, 0), (12, 5, 1)):
        for batch in training_batches(data, batch_size, seed, 1, 4, rank, world_size=2):
            assert torch.equal(batch.for_teacher, whole[batch.indices])
            assert torch.equal(batch.images, own[batch.indices])
    assert not (whole == own).flatten(1).all(1).any()
    again = torch.cat([images for _, images in view_batches(data, 5, 25, for_teacher=True)])
    assert not torch.equal(data.other_cues(4).of_image, data.other_cues(5).of_image)
    assert not torch.equal(whole, again)


def test_without_pairs_and_in_the_teachers_own_training_there_is_one_image() -> None:
    for data in (planted("tint"), planted("tint", pairs="counterfactual").for_teacher()):
        batch = next(training_batches(data, 20, 3, 1, 4))
        assert batch.counterfactual is None and batch.for_teacher is batch.images
    balanced = planted("tint", val=9, pairs="counterfactual").on_balanced()
    assert next(training_batches(balanced, 9, 0, 0, 0)).counterfactual is not None


def test_fingerprints_differ_by_cues_and_by_nothing_else() -> None:
    def both(**options: object) -> tuple[str, str]:
        data = planted(**options)
        return data.fingerprint, data.for_teacher().fingerprint

    biased, unbiased = both(), both(students="unbiased", teacher="unbiased")
    assert biased[0] == biased[1] and unbiased[0] == unbiased[1]
    assert both(students="unbiased") == (unbiased[0], biased[1])
    assert both(test_cues=3) == biased
    others = [both(seed=1), both(conflicting=0.4), both(cue="tint"), unbiased, biased]
    assert len({fingerprint for fingerprint, _ in others} | {planted().identity.digest}) == 6


def test_held_out_images_are_balanced_and_never_validate() -> None:
    data = planted(val=27)
    assert data.val is None and planted().balanced is None
    cells = data.balanced.labels * 3 + data.balanced.cues.of_image
    assert cells.bincount().tolist() == [3] * 9
    balanced = data.on_balanced()
    assert balanced.train is data.balanced and len(balanced.train) == 27 and balanced.val is None
    assert balanced.fingerprint not in (data.fingerprint, data.identity.digest)
    assert balanced.for_teacher() is balanced
    with pytest.raises(UserError, match=r"data\.val_fraction"):
        planted().on_balanced()


def test_held_out_images_have_cues_as_the_students_do_by_draws_of_their_own() -> None:
    data = planted(val=60)  # as many images of each class as there are to train on
    own = data.classes_cue[data.held_out.labels]
    assert 0.7 < (data.held_out.cues.of_image == own).float().mean() < 0.95  # 0.8
    assert not torch.equal(data.held_out.cues.of_image, data.train.cues.of_image)
    aligned, random = planted(val=60, conflicting=0.0), planted(val=60, students="unbiased")
    assert torch.equal(aligned.held_out.cues.of_image, own)
    assert (random.held_out.cues.of_image == own).float().mean() < 0.6  # 1 / 3
    clean = planted("none", val=27)
    assert clean.held_out is clean.val and planted().held_out is None


def test_gray_is_refused_where_there_is_no_colour() -> None:
    gray = Images(np.repeat(some(9, 0).pixels[:, :1], 3, axis=1), np.arange(9) % 3)
    with pytest.raises(UserError, match="without colour"):
        prepare(Source(gray, gray.take(np.arange(0)), gray, ["a", "b", "c"]), Data(), CPU, Shortcut(cue="gray"))
