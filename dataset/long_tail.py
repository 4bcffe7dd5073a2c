"""Training images of few classes with many and many classes with few.

Letters: N images, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from errors import UserError


def count_long_tail(counts: NDArray[np.int64], ratio: float, seed: int) -> NDArray[np.int64]:
    """Return how many images of each class (C,) stay: n_c · ratio^(−r_c / (C − 1)), rounded.

    The rank r_c of a class, from 0 to C − 1, is drawn by the seed; long-tailed CIFAR (Cui et al., CVPR 2019) takes
    the class numbers.

    Args:
        counts: images of each class, n_c.
        ratio: of the largest class to the smallest, at least 1, where all have equally many.
        seed: of the ranks.
    """
    ranks = np.random.default_rng([seed, len(counts)]).permutation(len(counts))
    kept = np.rint(counts * ratio ** (-ranks / max(len(counts) - 1, 1)))
    return np.maximum(kept.astype(np.int64), np.minimum(counts, 1))


def choose_long_tail(labels: NDArray[np.int64], classes: list[str], ratio: float, seed: int) -> NDArray[np.int64]:
    """Return the positions, in order, of the images that stay.

    Raises:
        UserError: a class with fewer than two images left.
    """
    kept = count_long_tail(np.bincount(labels, minlength=len(classes)), ratio, seed)
    if kept.min() < 2:
        raise UserError(
            f"data.imbalance={ratio:g} leaves {kept.min()} image of class {classes[int(kept.argmin())]}, at least "
            "two are needed: give a smaller ratio"
        )
    order = np.random.default_rng([seed, len(labels)]).permutation(len(labels))
    chosen = [order[labels[order] == label][:count] for label, count in enumerate(kept)]
    return np.sort(np.concatenate(chosen))
