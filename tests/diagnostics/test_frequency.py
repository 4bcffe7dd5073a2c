from __future__ import annotations

import numpy as np
import pytest

from diagnostics.frequency import measure_by_frequency

LABELS = np.repeat(np.arange(7), 2)


def test_thirds_of_the_classes_by_their_training_images() -> None:
    counts = [5, 100, 40, 7, 60, 9, 80]  # 1, 6, 4 | 2, 5 | 3, 0
    right = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1], dtype=bool)  # two images a class
    found = measure_by_frequency(LABELS, np.where(right, LABELS, -1), counts)
    assert found == pytest.approx({"top1_many": 5 / 6, "top1_medium": 1 / 4, "top1_few": 2 / 4})
    assert sum(size * found[name] for name, size in zip(found, (6, 4, 4), strict=True)) == right.sum()


@pytest.mark.parametrize("counts", [[], [10, 100], [10] * 7, [10, 12, 11, 19, 10, 10, 10]])
def test_classes_of_nearly_one_size_have_no_thirds(counts: list[int]) -> None:
    assert measure_by_frequency(LABELS, LABELS, counts) == {}
