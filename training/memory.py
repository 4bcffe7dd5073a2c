"""What a run's jobs need at least of memory and disk, from sizes alone: refused before anything is written.

Letters: N training images, K negatives, B batch, D dimension of the projections.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.stages import CRD
from dataset.cache_folder import see_that_it_can_be_written
from dataset.memory import machine_memory, see_that_it_fits
from losses.bank import BLOCK
from models.machine import Machine
from models.taps import TappedModel
from training import distributed
from training.experiment import Experiment

FLOAT = 4  # bytes
OF_SCORE = 13  # bytes: a score, what the binary loss keeps beside it, and whether it is of a negative
KEPT = 3  # a parameter, its gradient and its momentum


def memory_of(machine: Machine) -> int | None:
    """Bytes of memory on the device, None where that is not known."""
    if machine.device.type == "cuda":
        return int(torch.cuda.get_device_properties(machine.device).total_memory)
    return machine_memory()


@torch.no_grad()
def activations(model: nn.Module, image_size: int) -> int:
    """Values that the modules of a network on the meta device give for one image, which training keeps."""
    sizes: list[int] = []

    def count(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    model.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(sizes)


@dataclass(frozen=True)
class Followed:
    """A network on the meta device and what one image says of it, asked once for all jobs that train it."""

    model: TappedModel
    image_size: int

    @cached_property
    def activations(self) -> int:
        return activations(self.model, self.image_size)

    @cached_property
    def width(self) -> int:
        """Values of all its taps together."""
        return sum(self.model.tap_dims(self.image_size))


def check_batch(experiment: Experiment, network: Followed, key: str, batch: int) -> None:
    """Raise `UserError` for a batch whose activations do not fit into memory.

    Args:
        network: that is trained.
        key: of the config, which the message names.
        batch: images a step.
    """
    size, machine = experiment.config.data.image_size, experiment.machine
    one, has = network.activations * machine.dtype.itemsize, memory_of(machine)
    see_that_it_fits(f"data.image_size={size}", "the activations of one image", one, has)
    mine = -(-min(batch, len(experiment.data.train)) // distributed.world_size())
    see_that_it_fits(f"{key}={batch}", f"the activations of {mine:,} images", one * mine, has)


def bank_bytes(settings: CRD, images: int) -> int:
    """Count the bytes of the banks of N training images, 0 for a form that has none."""
    taps = (settings.lambda_penultimate > 0) + (settings.lambda_last > 0)
    return FLOAT * 2 * taps * images * settings.dim if settings.from_bank else 0  # two networks


def cache_bytes(experiment: Experiment, teacher: Followed) -> int:
    """Count the bytes of the teacher's cached outputs, in float16."""
    width = experiment.data.num_classes + teacher.width
    return experiment.config.teacher.views * len(experiment.data.train) * width * 2


def check_alignment(experiment: Experiment, settings: CRD, networks: Iterable[Followed], batch: int) -> None:
    """Raise `UserError` for banks, projections or negatives that do not fit into memory.

    Args:
        settings: the config's section crd, or a variant's.
        networks: student and teacher.
        batch: B of the job that aligns.
    """
    has, count = memory_of(experiment.machine), len(experiment.data.train)
    widths = sum(network.width for network in networks)
    if settings.objective == "regression":
        return
    banks = bank_bytes(settings, count)
    projections = KEPT * widths * settings.dim
    what = "banks and projections" if banks else "projections"
    see_that_it_fits(f"crd.dim={settings.dim}", what, banks + FLOAT * projections, has)
    if banks:
        own = -(-min(batch, count) // distributed.world_size())
        turns = 3 + settings.num_negatives // count  # round the bank, each with every anchor and its gradient
        rows = 2 * FLOAT * turns * own * settings.dim
        block = min(count, BLOCK[experiment.machine.device.type])
        reached = turns * own
        if settings.negatives != "shared":  # windows are apart, and few need the same block
            reached = min(reached, (block + settings.num_negatives) * own // count + 2)
        scores = OF_SCORE * reached * block
        see_that_it_fits(f"crd.num_negatives={settings.num_negatives}", "negatives of a batch", rows + scores, has)


def check_views(experiment: Experiment, teacher: Followed) -> None:
    """Raise `UserError` for a cache of the teacher's outputs that the disk cannot hold, old caches aside."""
    views, data = experiment.config.teacher.views, experiment.config.data
    if views:
        see_that_it_can_be_written(data.cache_dir)
        needed = cache_bytes(experiment, teacher)
        kept = sum(path.stat().st_size for path in data.cache_dir.glob("teacher-*/view*.npy"))
        free = shutil.disk_usage(_existing(data.cache_dir)).free
        where = f"disk in data.cache_dir {data.cache_dir}"
        see_that_it_fits(f"teacher.views={views}", "cached outputs", needed, free + kept, where)


def _existing(path: Path) -> Path:
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.is_dir())
