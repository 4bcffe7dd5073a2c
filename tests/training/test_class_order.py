from __future__ import annotations

import numpy as np
import pytest

from training.class_order import describe_order, find_class_order, is_near_chance


@pytest.mark.parametrize("accuracy", [1.0, 0.6])
def test_folders_in_text_order_are_found(accuracy) -> None:
    names = sorted(map(str, range(100)))  # 0, 1, 10, 11, ...
    rng = np.random.default_rng(0)
    labels = np.arange(2000) // 20
    meant = np.where(rng.random(2000) < accuracy, labels, rng.integers(0, 100, 2000))
    answers = np.array([int(name) for name in names])[meant]  # a teacher whose outputs are in numeric order
    order = find_class_order(answers, labels, 100)
    assert order is not None and np.mean([names[place] == str(k) for k, place in enumerate(order)]) > 0.98
    assert describe_order(order, names).startswith("its outputs seem to be 0, 1, 2, 3, 4, 5, 6, 7, ..., but")


def test_two_swapped_classes_are_found() -> None:
    labels = np.arange(200) // 2 % 2
    assert find_class_order(1 - labels, labels, 2) == [1, 0]


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("accuracy", [0.0, 0.3, 1.0])
def test_no_order_is_named_without_evidence(classes, accuracy) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(1000) % classes)
        answers = np.where(rng.random(1000) < accuracy, labels, rng.integers(0, classes, 1000))
        assert find_class_order(answers, labels, classes) is None


def test_chance_is_the_share_of_the_largest_class() -> None:
    even, uneven = np.arange(400) % 2, np.array([0] * 348 + [1] * 52)  # 87 %
    assert not is_near_chance(1.0, even) and is_near_chance(0.53, even)
    assert is_near_chance(0.87, uneven) and not is_near_chance(0.95, uneven)
    assert not is_near_chance(1.0, np.array([0, 0, 1]))
