"""Test images for a study's report on which both teacher and student follow the cue, with their answers.

Letters: E examples, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset.sources import Source, load_source
from diagnostics.names import focus
from diagnostics.shortcut import recording_file
from diagnostics.shortcut.measures import Shown
from errors import UserError
from settings.images import Shortcut
from settings.study import Hypothesis
from study.grid import Point, has_values
from study.measurements import TEACHER, RecordedRun, StudyContext
from study.results import TEACHER_ARM
from training.run.run_folder import RunFolder

NO_EXAMPLES = "Example images were not asked for."
MOST_EXAMPLES = 8


@dataclass(frozen=True)
class Examples:
    """Test images under another class's cue, with the label and each model's answer.

    pixels (E, 3, S, S) uint8, labels E names of classes, answers: E names of classes by model, place: in words.
    """

    pixels: NDArray[np.uint8]
    labels: Sequence[str]
    answers: Mapping[str, Sequence[str]]
    place: str


def choose_examples(context: StudyContext) -> Examples | str:
    """Return images of the first run that answers on which both networks follow the cue, or why there are none.

    The student is the second of the first hypothesis, else two-stage.
    """
    place = _choose_run(context)
    recording = recording_file.read(place.recording)
    shown = {model.method: recording.shown(number) for number, model in enumerate(recording.models)}
    methods = _choose_methods(context, list(shown))
    teacher, student = shown.get(TEACHER), shown.get(methods[-1]) if methods else None
    if teacher is None or student is None:
        return "They need a planted cue and answers of a teacher and a student."
    images, columns = choose_followed(teacher, student)
    if not images:
        return "No conflicting image on which both follow the cue."
    try:
        config = RunFolder(place.run).config()
        source = load_source(config.data)
    except (UserError, OSError) as error:
        return f"The images could not be loaded: {error}."
    if not np.array_equal(source.test.labels, recording.labels):
        return "The images that are found now are not those that were recorded."
    pixels = _plant_cues(source, config.shortcut, images, recording.cues[images, columns])
    answering = {name: one for name in (TEACHER, *methods) if (one := shown[name]) is not None}
    answers = {
        name: [source.classes[c] for c in one.predictions[images, columns]] for name, one in answering.items()
    }
    labels = [source.classes[label] for label in recording.labels[images]]
    return Examples(pixels, labels, answers, place.place)


def choose_followed(teacher: Shown, student: Shown, most: int = MOST_EXAMPLES) -> tuple[list[int], list[int]]:
    """Return images and columns of at most `most` conflicting shows on which both follow the cue, an image once.

    Images lie evenly apart in the test set; from one to the next the choice among an image's shows moves on.
    """
    both = teacher.fooled & student.follows  # (n, J)
    images = np.flatnonzero(both.any(axis=1))
    chosen = images[np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)].tolist()
    shows = [np.flatnonzero(both[image]) for image in chosen]
    return chosen, [int(columns[number % len(columns)]) for number, columns in enumerate(shows)]


def _find_stated(context: StudyContext) -> Hypothesis | None:
    return next(iter(context.hypotheses.values()), None)


def _choose_run(context: StudyContext) -> RecordedRun:
    """Return the first recorded run where a hypothesis is stated, else of a biased teacher, else of all."""
    stated = _find_stated(context)
    where: list[Point] = [stated.where] if stated is not None else []
    where += [{TEACHER_ARM: "biased"}, {}]
    return next(place for point in where for place in context.recorded if has_values(place.point, point))


def _choose_methods(context: StudyContext, present: Sequence[str]) -> list[str]:
    """Return the students whose answers are shown, the one in question last."""
    stated = _find_stated(context)
    named = [] if stated is None else [name for name in (stated.first, stated.second) if name in present]
    students = [name for name in present if name != TEACHER]
    return [name for name in named if name != TEACHER] or ([focus(students)] if students else [])


def _plant_cues(
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
