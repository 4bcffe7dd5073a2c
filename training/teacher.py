"""The teacher of a run: trained by it, or given by the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from errors import UserError, warn
from models.checkpoint import load_weights
from models.foreign import TIMM
from models.whole import hash_file
from models.zoo import STEMMED, find_published
from training import distributed
from training.class_order import describe_order, find_class_order, is_near_chance
from training.evaluation import evaluate, measure_logits, predict, show_measures
from training.experiment import Experiment


def check_init(experiment: Experiment) -> None:
    """Raise `UserError` if the weights of `teacher.init` are missing or do not fit."""
    settings = experiment.config.teacher
    if settings.init is not None:
        load_weights(experiment.build(settings, pretrained=False), settings.init, settings.arch)


def ensure_teacher(experiment: Experiment) -> nn.Module:
    """Return the run's teacher, frozen; copy the given one if there is none yet.

    Raises:
        UserError: there is no teacher, or the given one does not fit.
    """
    folder = experiment.folder.teacher
    _check_unchanged(experiment)
    is_missing = not folder.is_finished
    distributed.wait_for_all()  # every process has looked before the first of them writes
    if is_missing:
        _copy_given(experiment)
    return experiment.load_trained(experiment.config.teacher, folder).requires_grad_(False)


def check_teacher(experiment: Experiment, renewed: bool) -> None:
    """Raise `UserError` if a phase that needs a teacher would have none that fits.

    renewed: the run's teacher is about to be removed.
    """
    folder = experiment.folder.teacher
    if not renewed:
        _check_unchanged(experiment)
        if not is_given(experiment):  # a given one is copied again
            folder.refuse_missing_files()
    if renewed or not folder.is_finished:
        _load_given(experiment)


def _check_unchanged(experiment: Experiment) -> None:
    """Raise `UserError` for a given file that has changed since the run copied it."""
    path, folder = experiment.config.teacher.checkpoint, experiment.folder.teacher
    if path is None or not folder.has_result or not path.exists():
        return
    copied = folder.read_result().get("source_sha256")
    if copied is not None and copied != hash_file(path):
        raise UserError(
            f"teacher.checkpoint {path} has changed since {folder.path} copied it: put the old file back, "
            "or start over with --phase all --fresh"
        )


def is_given(experiment: Experiment) -> bool:
    """Return whether the config names a teacher that needs no training.

    Published weights need none where they fill the network: the same classes, and the stem they were trained with.
    """
    settings = experiment.config.teacher
    if settings.checkpoint is not None:
        return True
    if settings.weights is None or (settings.arch in STEMMED and settings.stem == "cifar"):
        return False
    return find_published(settings.arch, settings.weights).classes == experiment.data.num_classes


def _load_given(experiment: Experiment) -> tuple[nn.Module, dict[str, Any]]:
    """Return the given teacher, and for its result where it comes from."""
    settings = experiment.config.teacher
    if settings.checkpoint is not None:
        path = Path(settings.checkpoint)
        model = experiment.build(settings, pretrained=False)
        load_weights(model, path, settings.arch)
        return model, {"source": str(path), "source_sha256": hash_file(path)}
    if settings.weights is None:
        raise UserError(
            "there is no teacher: train one with --phase teacher, name a file with --set teacher.checkpoint=FILE, "
            "or published weights with --set teacher.weights=DEFAULT"
        )
    if not is_given(experiment):
        raise UserError(
            f"teacher.weights {settings.weights} leave the stem or the {experiment.data.num_classes}-class head "
            "untrained: fine-tune them first with --phase teacher (or use teacher.stem=imagenet)"
        )
    library = "" if settings.arch.startswith(TIMM) else "torchvision "
    return experiment.build(settings), {"source": f"{library}{settings.arch} {settings.weights}"}


def _copy_given(experiment: Experiment) -> None:
    """Copy the given teacher into the run; warn of one at chance level."""
    model, origin = _load_given(experiment)
    data, machine = experiment.data, experiment.machine
    model = machine.place(model)
    logits = predict(model, data.test, machine)
    measures = {} if data.val is None else evaluate(model, data.val, machine, "val")
    measures |= measure_logits(logits, data.test.labels, "test")
    if distributed.rank() == 0:
        experiment.folder.teacher.finish(model, {**origin, **measures})
    distributed.wait_for_all()
    top1 = measures["test_top1"]
    if not experiment.machine.quiet:
        distributed.print_rank0(f"teacher: copied from {origin['source']}, {show_measures({'test_top1': top1})}")
    labels, answers = data.test.labels.cpu().numpy(), logits.argmax(dim=1).cpu().numpy()
    order = find_class_order(answers, labels, data.num_classes)
    if order is not None:
        warn(
            f"the teacher from {origin['source']} is right on {100 * top1:.1f} % of the test images "
            f"since its classes are in another order: {describe_order(order, data.classes)}: rename the class "
            "folders so that sorting gives its order, or reorder the rows of its classifier"
        )
    elif is_near_chance(top1, labels):
        warn(
            f"the teacher from {origin['source']} is right on {100 * top1:.1f} % of the test images, hardly more "
            "than chance (the share of the largest class): are its images normalised otherwise?"
        )
