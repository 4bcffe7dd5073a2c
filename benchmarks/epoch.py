"""An epoch of training on CIFAR-100 against a plain torch loop: plain training, and stage 1 in its forms.

    python -m benchmarks.epoch [--device cuda]

The CIFAR-100 config's settings on random images, resnet18 to resnet20, the teacher looked up in a cache. The plain
loop trains the same student in the same precision with Pillow, torchvision's transforms and a DataLoader of two
processes, one a core before a GPU. All take turns, some steps each, and are scaled to an epoch; measuring after it
and, once a run, filling banks and cache are left out.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks import reference
from benchmarks.setting import (
    TRAIN,
    draw_images,
    load_cifar_config,
    make_steps,
    open_random_experiment,
    prepare_random,
)
from benchmarks.timing import Timings, measure_in_turn, run_parts
from dataset.images import Batch
from dataset.loader import count_batches, iter_training_batches
from training.experiment import Experiment
from training.job_name import JobName
from training.setup import TrainingSetup

STEPS, TURNS = 8, 4
FIRST_BATCHES = 8  # that regression whitens by, once a run
FORMS = {  # of stage 1: the losses of each
    "from a bank": "{}",
    "in the batch": "{crd: {objective: infonce, negatives: batch, mode: instance}}",
    "by regression": "{crd: false, regression: 1}",
}


def read_first_batches(prepared: TrainingSetup) -> Iterator[Batch]:
    return islice(iter_training_batches(prepared.data, prepared.plan.batch_size, 0, 0, 0), FIRST_BATCHES)


def make_plain_loop(experiment: Experiment) -> Callable[[], None]:
    """Return a call that trains the student for `STEPS` steps, as one writes it with torchvision alone."""
    student, device = experiment.build_student(0), experiment.machine.device
    images = reference.PillowImages(draw_images(TRAIN))
    loader = reference.make_loader(images, experiment.config.training.batch_size, device)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batches = reference.repeat(loader)

    def train_steps() -> None:
        for images, labels in islice(batches, STEPS):
            with experiment.machine.autocast():
                logits = student(images.to(device, non_blocking=True))
                loss = F.cross_entropy(logits, labels.to(device, non_blocking=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train_steps


def compare_epochs(device: torch.device, capture: bool = False) -> Timings:
    """Time an epoch of the plain loop, of plain training and of each form of stage 1."""
    with tempfile.TemporaryDirectory() as name:
        forms = [
            f"methods.form{number}={{base: two_stage, stage1: {{losses: {losses}}}}}"
            for number, losses in enumerate(FORMS.values())
        ]
        config = load_cifar_config(Path(name), "teacher.cached_views=1", *forms)
        experiment = open_random_experiment(config, Path(name), TRAIN, device, capture)
        jobs = {"plain training": JobName("scratch", 0)}
        jobs |= {f"stage 1 {form}": JobName(f"form{number}", 0, 1) for number, form in enumerate(FORMS)}
        calls = {"plain torch loop": make_plain_loop(experiment)}
        for form, job in jobs.items():
            prepared = prepare_random(experiment, job)
            prepared.objective.prepare(read_first_batches(prepared))
            calls[form] = make_steps(prepared, experiment.machine, STEPS)
        timings = measure_in_turn(calls, TURNS, device)
    gc.collect()  # graphs, which processes that load images must not copy
    scale = count_batches(TRAIN, config.training.batch_size) / STEPS
    return {form: timing.scale(scale) for form, timing in timings.items()}


def compare_captured_epochs(device: torch.device) -> Timings:
    """Time the same with passes captured as CUDA graphs."""
    return compare_epochs(device, capture=True)


PARTS = {"Epoch": compare_epochs}

if __name__ == "__main__":
    run_parts(__doc__, PARTS)
