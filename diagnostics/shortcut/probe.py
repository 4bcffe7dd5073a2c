"""Linear probes that read a cue or a label off features or images.

Letters: N samples, D dimensions, S side in pixels.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from dataset.cues.shortcut import Cues, assign_cues
from dataset.images import ImageTensors
from dataset.prepare import TrainingData
from dataset.views.augment import apply_view, draw_view, make_generator

MAX_SAMPLES = 10_000  # more would take minutes and move a linear probe little
ITERATIONS = 200
BATCH = 500
PROBE_IMAGES = 5000  # training images that the probes learn from, at most
POOLED = 8  # side of what the cue-only probe sees


def fit_balanced_probe(
    train_X: NDArray[np.floating],
    train_y: NDArray[np.integer],
    test_X: NDArray[np.floating],
    test_y: NDArray[np.integer],
    seed: int = 0,
) -> float | None:
    """Fit a logistic probe on features (N, D) and return its mean recall.

    Give it images whose cue and label are independent, or one is read off the other. Classes weigh alike in
    training, unlike in `geometry.fit_linear_probe`. The seed draws MAX_SAMPLES of the training features where
    there are more. None where training has a single class.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second to import, for those who need it
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.preprocessing import StandardScaler

    chosen = np.random.default_rng(seed).permutation(len(train_X))[:MAX_SAMPLES]
    X, y = train_X[chosen].astype(np.float64), train_y[chosen]
    if len(np.unique(y)) < 2:
        return None
    scaler = StandardScaler().fit(X)
    # One thread: BLAS and OpenMP threads in turn wait for each other, slower by ten times on a busy machine.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an accuracy needs no optimum to its last digit
        model = LogisticRegression(class_weight="balanced", max_iter=ITERATIONS).fit(scaler.transform(X), y)
        predictions = model.predict(scaler.transform(test_X.astype(np.float64)))
    return float(recall_score(test_y, predictions, labels=np.unique(test_y), average="macro"))


def assign_uniform_cues(data: TrainingData) -> ImageTensors:
    """Return the training images under cues that do not depend on their class."""
    cue, seed = data.shortcut.cue, data.shortcut.seed
    assert data.classes_cue is not None
    own = data.classes_cue.cpu()
    image_cues = assign_cues(data.train.labels, own, data.cue_count, "uniform", seed)
    return data.train.with_cues(Cues(cue, own, data.cue_count, image_cues))


def read_cue(data: TrainingData) -> float | None:
    """Return the mean recall of a probe of the cue on augmented images.

    Cues are random. It sees coarse maps of colour, saturation and contrast, so no class; learns from one half of
    the images and is tested on the other. None where no cue is planted.
    """
    if data.shortcut.cue in ("none", "file"):
        return None
    images, settings = assign_uniform_cues(data), data.settings
    assert images.cues is not None
    chosen = torch.randperm(len(images), generator=make_generator(0))[: 2 * PROBE_IMAGES].to(images.device)
    view = draw_view(settings.seed, 0, len(images), settings.crop, settings.flip)
    parts = (images.cues.draw(apply_view(images.load_raw(i), i.cpu(), view), i) for i in chosen.split(BATCH))
    maps = torch.cat([_map_coarsely(part) for part in parts])
    cues, X, half = images.cues.image_cues[chosen].cpu().numpy(), maps.cpu().numpy(), len(chosen) // 2
    return fit_balanced_probe(X[:half], cues[:half], X[half:], cues[half:])


def _map_coarsely(pixels: Tensor) -> Tensor:
    """Return (B, D) of uint8 (B, 3, S, S): colour, saturation, contrast."""
    colour = pixels.float() / 255
    saturation = colour.amax(dim=1, keepdim=True) - colour.amin(dim=1, keepdim=True)
    smooth = F.avg_pool2d(colour, 3, stride=1, padding=1, count_include_pad=False)
    maps = torch.cat([colour, saturation, (colour - smooth).abs()], dim=1)
    return F.adaptive_avg_pool2d(maps, POOLED).flatten(1)
