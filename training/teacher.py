"""The teacher of a run: the one that it trained, or one taken from where the config says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from errors import UserError, warn
from models.checkpoint import load_weights
from models.foreign import TIMM
from models.published import published
from models.whole import file_hash
from models.zoo import STEMMED
from settings.networks import Teacher
from training import distributed
from training.evaluation import Measures, evaluate_splits
from training.experiment import Experiment


def check_training(experiment: Experiment) -> None:
    """Raise `UserError`, before anything is written, if the weights to start from are not there or do not fit."""
    settings = experiment.config.teacher
    if settings.init is not None:
        load_weights(experiment.build(settings, pretrained=False), settings.init, settings.arch)


def ensure_teacher(experiment: Experiment) -> nn.Module:
    """Return the run's teacher, frozen; taken over from `teacher.checkpoint` or `teacher.weights` if absent.

    Raises:
        UserError: there is no teacher, or the given one does not fit.
    """
    settings, folder = experiment.config.teacher, experiment.folder.teacher
    _refuse_another_file(experiment)
    missing = not folder.finished
    distributed.barrier()  # every process has looked before the first of them writes
    if missing:
        _take_over(experiment)
    return experiment.trained(settings, folder).requires_grad_(False)


def check_teacher(experiment: Experiment, renewed: bool) -> None:
    """Raise `UserError`, before anything is written, if a phase that needs a teacher would have none that fits.

    renewed: what the run has of a teacher is about to be removed.
    """
    if not renewed:
        _refuse_another_file(experiment)
        if not is_given(experiment):  # a given one is copied anew
            experiment.folder.teacher.refuse_lacking()
    if renewed or not experiment.folder.teacher.finished:
        _given_teacher(experiment)


def _refuse_another_file(experiment: Experiment) -> None:
    """Raise `UserError` for a given file that has changed since the run copied it: it is another teacher."""
    path, folder = experiment.config.teacher.checkpoint, experiment.folder.teacher
    if path is None or not folder.marked or not path.exists():
        return
    copied = folder.result().get("source_sha256")
    if copied is not None and copied != file_hash(path):
        raise UserError(
            f"teacher.checkpoint {path} has changed since {folder.path} copied it: put the old file back, "
            "or start over with --phase all --fresh"
        )


def is_given(experiment: Experiment) -> bool:
    """Return whether the config names a teacher that can be used as it is."""
    settings = experiment.config.teacher
    if settings.checkpoint is not None:
        return True
    return _usable_as_is(experiment)


def _usable_as_is(experiment: Experiment) -> bool:
    """Return whether published weights fill the network: these classes, and the stem they were trained with."""
    settings = experiment.config.teacher
    if settings.weights is None:
        return False
    same_classes = published(settings.arch, settings.weights).classes == experiment.data.num_classes
    return same_classes and not (settings.arch in STEMMED and settings.stem == "cifar")


def _given_teacher(experiment: Experiment) -> tuple[nn.Module, dict[str, Any]]:
    settings = experiment.config.teacher
    if settings.checkpoint is not None:
        path = Path(settings.checkpoint)
        model = experiment.build(settings, pretrained=False)
        load_weights(model, path, settings.arch)
        return model, {"source": str(path), "source_sha256": file_hash(path)}
    if settings.weights is None:
        raise UserError(
            "there is no teacher: train one with --phase teacher, name a file with --set teacher.checkpoint=FILE, "
            "or published weights with --set teacher.weights=DEFAULT"
        )
    if not _usable_as_is(experiment):
        raise UserError(
            f"teacher.weights {settings.weights} leave the stem or the {experiment.data.num_classes}-class head "
            "untrained: fine-tune them first with --phase teacher (or use teacher.stem=imagenet)"
        )
    return experiment.build(settings), {"source": _source_of(settings)}


def _source_of(settings: Teacher) -> str:
    library = "" if settings.arch.startswith(TIMM) else "torchvision "
    return f"{library}{settings.arch} {settings.weights}"


def _take_over(experiment: Experiment) -> None:
    model, origin = _given_teacher(experiment)
    measures = _finish(experiment, experiment.machine.place(model), origin)
    if distributed.rank() == 0:
        _say_how_good(experiment, origin["source"], measures["test_top1"])


def _say_how_good(experiment: Experiment, source: str, top1: float) -> None:
    if not experiment.machine.quiet:
        print(f"teacher: taken over from {source}, test top-1 {top1:.4f}", flush=True)
    if top1 <= 2 / experiment.data.num_classes:
        warn(
            f"the teacher from {source} is right on {100 * top1:.1f} % of the test images, hardly more than "
            "chance: are its classes in another order, or its images normalised otherwise?"
        )


def _finish(experiment: Experiment, model: nn.Module, result: dict[str, Any]) -> Measures:
    measures = evaluate_splits(model, experiment.data, experiment.machine)
    if distributed.rank() == 0:
        experiment.folder.teacher.finish(model, {**result, **measures})
    distributed.barrier()
    return measures
