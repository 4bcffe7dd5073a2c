from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.long_tail import choose_long_tail, count_long_tail
from dataset.sources import load_source
from errors import UserError
from settings.images import Data


def test_counts_fall_geometrically_from_the_most_frequent_class_to_the_rarest() -> None:
    found = np.sort(count_long_tail(np.full(100, 320), 50, 3))[::-1]
    assert found.tolist() == [round(320 * 50 ** (-rank / 99)) for rank in range(100)]  # 320 to 6
    assert found[0] == 320 and found[-1] == 6
    other = count_long_tail(np.full(100, 320), 50, 4)
    assert not np.array_equal(other, count_long_tail(np.full(100, 320), 50, 3))  # other classes are rare
    assert count_long_tail(np.array([9]), 50, 0).tolist() == [9]


@given(st.lists(st.integers(4, 60), min_size=2, max_size=8), st.floats(1, 2), st.integers(0, 5))
def test_what_stays_is_a_part_of_every_class(counts: list[int], ratio: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    kept = choose_long_tail(labels, [str(number) for number in range(len(counts))], ratio, seed)
    assert (np.diff(kept) > 0).all()
    expected = count_long_tail(np.array(counts), ratio, seed)
    assert np.bincount(labels[kept], minlength=len(counts)).tolist() == expected.tolist()
    assert (expected <= counts).all() and (expected >= np.floor(np.array(counts) / ratio)).all()


def test_a_config_thins_out_training_images_alone() -> None:
    whole, thin = (load_source(Data(image_size=8, crop=0, imbalance=ratio, val_fraction=0.2)) for ratio in (1, 10))
    assert np.array_equal(whole.test.pixels[:], thin.test.pixels[:])
    counts = np.bincount(thin.train.labels)
    assert counts.max() > 8 * counts.min() and len(thin.val) == round(0.2 * (len(thin.val) + len(thin.train)))
    assert whole.identity.train != thin.identity.train
    with pytest.raises(UserError, match="data.imbalance=1000 leaves 1 image of"):
        load_source(Data(image_size=8, crop=0, imbalance=1000))
