"""Memory and disk space that jobs need at least, from sizes alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import torch

from dataset.memory import check_fits, check_writable, find_machine_memory
from losses.loss import Loss, MemoryNeed, Sizes
from models.layout import Layout
from models.machine import Machine
from training import distributed
from training.experiment import Experiment
from training.reading import find_shapes
from training.teacher_outputs import list_cached_places


def get_memory(machine: Machine) -> int | None:
    """Return the bytes of memory on the device, None where that is not known."""
    if machine.device.type == "cuda":
        return int(torch.cuda.get_device_properties(machine.device).total_memory)
    return find_machine_memory()


def check_activations(experiment: Experiment, layout: Layout, key: str, batch: int) -> None:
    """Raise `UserError` for a batch whose activations do not fit into memory."""
    size, machine = experiment.config.data.image_size, experiment.machine
    one, has = layout.activations * machine.dtype.itemsize, get_memory(machine)
    check_fits(f"data.image_size={size}", "the activations of one image", one, has)
    own = _share_batch(batch, len(experiment.data.train))
    check_fits(f"{key}={batch}", f"the activations of {own:,} images", one * own, has)


def _share_batch(batch: int, count: int) -> int:
    """Return the images of a batch in one process. `count`: training images."""
    return -(-min(batch, count) // distributed.world_size())


def list_needs(
    experiment: Experiment, losses: Mapping[str, Loss], layout: Layout, batch: int
) -> list[tuple[str, MemoryNeed]]:
    """Return the memory of losses by config key. `layout`: of the trained network."""
    teacher, labels = experiment.find_layout(experiment.config.teacher), experiment.data.train.labels
    own, device = _share_batch(batch, len(labels)), experiment.machine.device.type
    found = []
    for key, loss in losses.items():
        if loss.needs_teacher:
            sizes = Sizes(find_shapes(layout, [loss]), find_shapes(teacher, [loss]), labels)
            found += [(key, need) for need in loss.estimate_memory(sizes, own, device)]
    return found


def check_loss_memory(experiment: Experiment, losses: Mapping[str, Loss], layout: Layout, batch: int) -> None:
    """Raise `UserError` for losses that do not fit into memory; see `list_needs`."""
    has = get_memory(experiment.machine)
    for key, need in list_needs(experiment, losses, layout, batch):
        value = getattr(losses[key], need.option)
        check_fits(f"{key}.{need.option}={value}", need.what, need.bytes, has)


def count_cache_bytes(experiment: Experiment) -> int:
    """Count the bytes of the teacher's cached outputs, in float16."""
    layout = experiment.find_layout(experiment.config.teacher)
    width = experiment.data.num_classes + sum(
        layout.find_shape(place)[0] for place in list_cached_places(experiment)
    )
    return experiment.config.teacher.cached_views * len(experiment.data.train) * width * 2


def check_cache_space(experiment: Experiment) -> None:
    """Raise `UserError` for a teacher's cache that the disk cannot hold."""
    views, folder = experiment.config.teacher.cached_views, experiment.config.data.cache_dir
    if views:
        check_writable(folder)
        kept = sum(path.stat().st_size for path in folder.glob("teacher-*/view*.npy"))
        there = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.is_dir())
        free, needed = shutil.disk_usage(there).free, count_cache_bytes(experiment)
        where = f"disk in data.cache_dir {folder}"
        check_fits(f"teacher.cached_views={views}", "cached outputs", needed, free + kept, where)
