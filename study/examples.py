"""Test images for a study's report: what teacher and student answer where both follow the cue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dataset.sources import Source, load_source
from diagnostics.names import focus
from diagnostics.shortcut import recording_file
from errors import UserError
from settings.images import Shortcut
from settings.study import Hypothesis
from study.figures import Examples, followed
from study.fitness import TEACHER
from study.grid import Point, agrees
from study.measurements import RecordedRun, StudyContext
from study.results import TEACHER_ARM
from training.run.run_folder import RunFolder


def choose_examples(context: StudyContext) -> Examples | str:
    """Return images of the first run that answers on which both networks follow the cue, or why there are none.

    The student is the second of the first hypothesis, else two-stage.
    """
    place = _place(context)
    recording = recording_file.read(place.recording)
    shown = {model.method: recording.shown(number) for number, model in enumerate(recording.models)}
    methods = _methods(context, list(shown))
    teacher, student = shown.get(TEACHER), shown.get(methods[-1]) if methods else None
    if teacher is None or student is None:
        return "They need a planted cue and answers of a teacher and a student."
    images, columns = followed(teacher, student)
    try:
        config = RunFolder(place.run).config()
        source = load_source(config.data)
    except (UserError, OSError) as error:
        return f"The images could not be loaded: {error}."
    if not np.array_equal(source.test.labels, recording.labels):
        return "The images that are found now are not those that were recorded."
    pixels = _under_cues(source, config.shortcut, images, recording.cues[images, columns])
    answering = {name: one for name in (TEACHER, *methods) if (one := shown[name]) is not None}
    answers = {
        name: [source.classes[c] for c in one.predictions[images, columns]] for name, one in answering.items()
    }
    labels = [source.classes[label] for label in recording.labels[images]]
    return Examples(pixels, labels, answers, place.place)


def _stated(context: StudyContext) -> Hypothesis | None:
    return next(iter(context.hypotheses.values()), None)


def _place(context: StudyContext) -> RecordedRun:
    """Return the first recorded run where a hypothesis is stated, else of a biased teacher, else of all."""
    recorded, stated = context.recorded, _stated(context)
    where: list[Point] = (
        [{TEACHER_ARM: "biased"}, {}] if stated is None else [stated.where, {TEACHER_ARM: "biased"}, {}]
    )
    return next(place for point in where for place in recorded if agrees(place.point, point))


def _methods(context: StudyContext, present: Sequence[str]) -> list[str]:
    """Return the students whose answers are shown, the one in question last."""
    stated = _stated(context)
    named = [] if stated is None else [name for name in (stated.first, stated.second) if name in present]
    students = [name for name in present if name != TEACHER]
    return [name for name in named if name != TEACHER] or ([focus(students)] if students else [])


def _under_cues(
    source: Source, shortcut: Shortcut, images: Sequence[int], cues: NDArray[np.integer]
) -> NDArray[np.uint8]:
    """Return test images (E, 3, S, S), each under one of its cues."""
    pixels: NDArray[np.uint8] = source.test.pixels[np.asarray(images, dtype=np.int64)]
    if not len(pixels) or shortcut.cue == "file":  # those have their cues already
        return pixels
    import torch  # a study without a picture to plant a cue in does without

    from dataset.cues.shortcut import stamp

    planted = stamp(shortcut.cue, torch.from_numpy(pixels), torch.from_numpy(cues), torch.tensor(images))
    return planted.numpy()
