from __future__ import annotations

import numpy as np
import pytest

from dataset.files.decoded_cache import Images, join_images
from dataset.repeats import Repeats, count_repeats
from tests.dataset.small_data import make_images


def take(images: Images, *places: int) -> Images:
    return images.take(np.array(places, dtype=np.int64))


def test_images_in_two_parts_are_counted() -> None:
    images = make_images(30)
    train, val, test = take(images, *range(10)), take(images, 9, 10, 11), take(images, 3, 4, 10, 20, 21)
    found = count_repeats(train, val, test)
    assert found == Repeats(test=3, val=1, labels=0)
    assert found.describe() == (
        "Equal pixels: 3 test images that are training or validation images too, "
        "1 validation images that are training images too."
    )


@pytest.mark.parametrize("is_test", [False, True])
def test_an_image_under_two_labels_is_counted(is_test) -> None:
    images, none = make_images(9), make_images(0)
    again = Images(images.pixels[[1]], images.labels[[2]])  # of the second image, with the third's label
    train, test = (images, again) if is_test else (join_images(images, again), none)
    assert count_repeats(train, none, test) == Repeats(test=int(is_test), labels=2)


def test_images_that_differ_have_no_sentence() -> None:
    assert count_repeats(make_images(9), make_images(0), make_images(6, seed=1)).describe() == ""
