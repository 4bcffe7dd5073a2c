"""What a run's jobs need at least of memory and disk, from sizes alone: refused before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dataset.memory import machine_memory, see_that_it_can_be_written, see_that_it_fits
from losses.loss import Loss, MemoryNeed, Sizes
from models.layout import Layout
from models.machine import Machine
from training import distributed
from training.experiment import Experiment
from training.reading import find_shapes
from training.teacher_side import list_cached_places


def memory_of(machine: Machine) -> int | None:
    """Return the bytes of memory on the device, None where that is not known."""
    if machine.device.type == "cuda":
        return int(torch.cuda.get_device_properties(machine.device).total_memory)
    return machine_memory()


@torch.no_grad()
def activations(model: nn.Module, image_size: int) -> int:
    """Count the values that modules of a network on the meta device give for one image, which training keeps."""
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


def check_batch(experiment: Experiment, layout: Layout, key: str, batch: int) -> None:
    """Raise `UserError` for a batch whose activations do not fit into memory.

    Args:
        layout: of the network that is trained.
        key: of the config, which the message names.
        batch: images a step.
    """
    size, machine = experiment.config.data.image_size, experiment.machine
    one, has = activations(layout.model, size) * machine.dtype.itemsize, memory_of(machine)
    see_that_it_fits(f"data.image_size={size}", "the activations of one image", one, has)
    mine = -(-min(batch, len(experiment.data.train)) // distributed.world_size())
    see_that_it_fits(f"{key}={batch}", f"the activations of {mine:,} images", one * mine, has)


def list_needs(
    experiment: Experiment, losses: Mapping[str, Loss], layout: Layout, batch: int
) -> list[tuple[str, MemoryNeed]]:
    """Return what losses keep in memory, each with the key of its loss.

    Args:
        losses: by key of the config, with their options.
        layout: of the network that is trained.
        batch: images a step.
    """
    teacher, labels = experiment.layout(experiment.config.teacher), experiment.data.train.labels
    own = -(-min(batch, len(labels)) // distributed.world_size())
    found = []
    for key, loss in losses.items():
        if loss.needs_teacher:
            sizes = Sizes(find_shapes(layout, [loss]), find_shapes(teacher, [loss]), labels)
            found += [(key, need) for need in loss.memory(sizes, own, experiment.machine.device.type)]
    return found


def check_losses(experiment: Experiment, losses: Mapping[str, Loss], layout: Layout, batch: int) -> None:
    """Raise `UserError` for banks, projections or negatives that do not fit into memory; arguments as above."""
    has = memory_of(experiment.machine)
    for key, need in list_needs(experiment, losses, layout, batch):
        value = getattr(losses[key], need.option)
        see_that_it_fits(f"{key}.{need.option}={value}", need.what, need.bytes, has)


def cache_bytes(experiment: Experiment) -> int:
    """Count the bytes of the teacher's cached outputs, in float16."""
    layout = experiment.layout(experiment.config.teacher)
    width = experiment.data.num_classes + sum(layout.shape(place)[0] for place in list_cached_places(experiment))
    return experiment.config.teacher.views * len(experiment.data.train) * width * 2


def check_views(experiment: Experiment) -> None:
    """Raise `UserError` for a cache of the teacher's outputs that the disk cannot hold, old caches aside."""
    views, data = experiment.config.teacher.views, experiment.config.data
    if views:
        see_that_it_can_be_written(data.cache_dir)
        kept = sum(path.stat().st_size for path in data.cache_dir.glob("teacher-*/view*.npy"))
        free = shutil.disk_usage(_existing(data.cache_dir)).free
        where = f"disk in data.cache_dir {data.cache_dir}"
        see_that_it_fits(f"teacher.views={views}", "cached outputs", cache_bytes(experiment), free + kept, where)


def _existing(path: Path) -> Path:
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.is_dir())
