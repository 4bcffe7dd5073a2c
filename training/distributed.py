"""Several processes under torchrun: who is who, sharing work, and joining tensors.

Letters: R processes, B images of a process's batch, N rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from errors import MachineError, UserError

T = TypeVar("T")


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join torchrun's group where there is one (NCCL on GPUs, Gloo on CPUs); gives this process's device.

    Raises:
        UserError: one GPU is named for several processes, or a part of torchrun's variables alone is set.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield device
        return
    if device.type == "cuda":
        if device.index is not None:
            raise UserError(
                f"--device {device}: under torchrun each process takes a GPU of its own, use cuda or auto"
            )
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # hours, since processes wait while the first of them decodes images or measures
    wait = timedelta(hours=12)
    try:
        store, own, count = next(rendezvous("env://", timeout=wait))
    except ValueError as error:  # variables that are missing, or no numbers
        raise UserError(f"WORLD_SIZE is set as torchrun sets it, but not the rest ({error}): unset it") from None
    # torchrun keeps its store over a restart, with addresses of processes that are gone: each start has own names
    store = PrefixStore(f"start{_starts()}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=own, world_size=count, timeout=wait)
    try:
        yield device
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise MachineError(
            "the connection to another process was lost, it may have been killed: see what it said; what was "
            "finished is kept, run again with --resume (or start torchrun with --max-restarts)"
        ) from error
    finally:
        dist.destroy_process_group()


def _is_of_connection(error: RuntimeError) -> bool:
    """Return whether an error says that another process is gone; gloo's have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _starts() -> int:
    """Count how often torchrun has started these processes again after a failure (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def restarted() -> bool:
    """Return whether torchrun has started this process again after a failure, its own or another's."""
    return _starts() > 0


def rank() -> int:
    """Return this process's number, 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def gather(tensor: Tensor) -> Tensor:
    """Join the tensors of all processes along the first dimension, in rank order, without gradient."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


class _WithGradient(torch.autograd.Function):
    """`gather` whose gradient goes to the process that a row came from.

    All processes compute the same loss of the whole, and their gradients are averaged afterwards: so a process's
    own rows get theirs R times.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return gather(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].chunk(world_size())[rank()] * world_size()


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Join tensors as `gather` does, for a loss of the whole batch whose gradients DDP averages."""
    if world_size() == 1:
        return tensor
    joined: Tensor = _WithGradient.apply(tensor)
    return joined


def whole_batch(tensor: Tensor) -> Tensor:
    """Return the rows (R B, ...) of a batch in order; each process has every R-th one (B, ...)."""
    if world_size() == 1:
        return tensor
    by_process: Tensor = gather(tensor).unflatten(0, (world_size(), -1))  # (R, B, ...)
    return by_process.transpose(0, 1).flatten(0, 1)


class AllProcesses:
    """The processes that train together, as losses ask for them."""

    def rank(self) -> int:
        return rank()

    def world_size(self) -> int:
        return world_size()

    def gather(self, tensor: Tensor) -> Tensor:
        return gather(tensor)

    def gather_with_gradient(self, tensor: Tensor) -> Tensor:
        return gather_with_gradient(tensor)

    def whole_batch(self, tensor: Tensor) -> Tensor:
        return whole_batch(tensor)


def over_processes(parts: Sequence[T], compute: Callable[[T], Tensor]) -> Tensor:
    """Return rows that `compute` gives for all parts in order, (N, ...), each process its share.

    All parts but the last have as many rows as the first.
    """
    if world_size() == 1:
        return torch.cat([compute(part) for part in parts])
    share = -(-len(parts) // world_size())
    own = [compute(part) for part in parts[rank() * share : (rank() + 1) * share]]
    shape, kind = from_first((tuple(own[0].shape), own[0].dtype) if rank() == 0 else ((), torch.float32))
    like = own[0] if own else torch.empty(0, dtype=kind, device=_device())
    rows = like.new_zeros((share * shape[0], *shape[1:]), dtype=kind)
    if own:
        rows[: sum(len(part) for part in own)] = torch.cat(own)
    last = gather(torch.tensor([sum(len(part) for part in own)], device=rows.device))
    return gather(rows)[: int(last.sum())]  # only the end is filled up


def _device() -> torch.device:
    return (
        torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    )


def averaging(module: nn.Module, sync_batch_norm: bool) -> nn.Module:
    """Return a module whose gradients are averaged over processes, its batch statistics shared if asked."""
    if sync_batch_norm:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if world_size() == 1:
        return module
    parallel = DistributedDataParallel(module)
    parallel.broadcast_buffers = False  # banks agree anyway, and batch statistics are those of the first process
    return parallel


def averaged_at(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Enter a batch of what `averaging` gave: gradients add up, those of the last are averaged."""
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    apart: AbstractContextManager[None] = module.no_sync()
    return apart


def share_buffers(module: nn.Module) -> None:
    """Take the first process's batch statistics, and whatever else a module keeps beside its parameters."""
    if world_size() == 1:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def from_first(value: T) -> T:
    """Return the first process's value of a plain object, in every process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_objects(value: T) -> list[T]:
    """Return the plain objects of all processes, in rank order, in every process."""
    if world_size() == 1:
        return [value]
    values: list[T] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def largest(numbers: Sequence[int], device: torch.device) -> list[int]:
    """Return the largest of all processes' numbers at each place, in every process."""
    tensor = torch.tensor(numbers, device=device)
    if world_size() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [int(number) for number in tensor.tolist()]


def mean(tensor: Tensor) -> Tensor:
    """Average a tensor over all processes."""
    if world_size() == 1:
        return tensor
    return gather(tensor[None]).mean(dim=0)
