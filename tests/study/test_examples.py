from __future__ import annotations

from dataclasses import replace

import numpy as np

from diagnostics.shortcut.measures import Shown, Shows
from study.examples import choose_followed


def test_followed_images_are_conflicting_and_fool_both():
    classes_cue = np.arange(4)
    labels, cues = np.repeat(np.arange(4), 5), np.tile(np.arange(4), (20, 1))
    teacher = Shown(Shows(labels, cues, classes_cue), cues.copy(), None)  # reads the cue alone
    student = replace(teacher, predictions=np.where(labels[:, None] < 2, cues, labels[:, None]))
    images, columns = choose_followed(teacher, student, most=4)
    assert images == [0, 3, 6, 9] and len(set(columns)) > 1
    assert all(labels[image] != cues[image, column] for image, column in zip(images, columns, strict=True))
    honest = replace(teacher, predictions=np.tile(labels[:, None], 4))
    assert choose_followed(teacher, honest) == ([], [])
