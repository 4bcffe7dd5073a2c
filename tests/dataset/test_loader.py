from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from config import Data
from dataset.augment import apply_view, draw_view, normalise
from dataset.loader import TrainingData, channel_statistics, prepare, steps_per_epoch, training_batches
from dataset.sources import Images, Source

CPU = torch.device("cpu")


def some(count: int, seed: int) -> Images:
    source = np.random.default_rng(seed)
    pixels = source.integers(0, 256, (count, 3, 6, 6)).astype(np.uint8)
    return Images(pixels, source.integers(0, 3, count))


def make(train: int = 22, val: int = 0, **options: object) -> TrainingData:
    source = Source(some(train, 0), some(val, 1), some(7, 2), ["a", "b", "c"], "fingerprint")
    return prepare(source, Data(crop=2, **options), CPU)


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


def test_measuring_batches_are_all_images_in_order_without_augmentation() -> None:
    data = make()
    batches = list(data.test.batches(3))
    assert [len(batch.labels) for batch in batches] == [3, 3, 1]
    joined: Tensor = torch.cat([batch.images for batch in batches])
    assert torch.equal(joined, normalise(torch.from_numpy(some(7, 2).pixels), data.mean, data.std))
    assert torch.cat([batch.labels for batch in batches]).tolist() == some(7, 2).labels.tolist()
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(7))


def test_statistics_equal_numpys() -> None:
    pixels = some(50, 0).pixels // np.array([1, 2, 3], dtype=np.uint8)[:, None, None]
    mean, std = channel_statistics(pixels, chunk=7)
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
