"""Several processes under torchrun: ranks, shared work and joined tensors.

Losses get this module as their `Processes`.

Letters: R processes, B images of a process's batch, N rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TypeVar

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
    """Join torchrun's group where there is one; yield this process's device.

    Raises:
        UserError: one GPU is named for several processes, or only some of torchrun's variables are set.
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
        raise UserError(f"WORLD_SIZE is set, but not torchrun's other variables ({error}): unset it") from None
    # torchrun keeps its store over a restart, with addresses of processes that are gone: each start has own names
    store = PrefixStore(f"start{_count_restarts()}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=own, world_size=count, timeout=wait)
    try:
        yield device
    except RuntimeError as error:
        if not _is_connection_error(error):
            raise
        raise MachineError(
            "another process is gone, it may have been killed: see its messages; finished work is kept, run again "
            "with --resume (or start torchrun with --max-restarts)"
        ) from error
    finally:
        dist.destroy_process_group()


def _is_connection_error(error: RuntimeError) -> bool:
    """Return whether another process is gone; gloo's errors have no class."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _count_restarts() -> int:
    """Return how often torchrun has restarted these processes (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def is_restarted() -> bool:
    """Return whether torchrun has restarted this process after a failure."""
    return _count_restarts() > 0


def rank() -> int:
    """Return this process's number, 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def print_rank0(text: str) -> None:
    """Print in the first process alone."""
    if rank() == 0:
        print(text, flush=True)


def wait_for_all() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def gather(tensor: Tensor) -> Tensor:
    """Join the rows of all processes in rank order, without gradient."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Join rows as `gather`, for a loss of the whole batch under DDP.

    All processes compute the same loss, so each keeps the gradient of its own rows, times R.
    """
    if world_size() == 1:
        return tensor
    parts = list(gather(tensor.detach()).chunk(world_size()))
    parts[rank()] = tensor
    joined = torch.cat(parts)
    if joined.requires_grad:
        joined.register_hook(lambda gradient: gradient * world_size())
    return joined


def gather_batch(tensor: Tensor) -> Tensor:
    """Join every R-th rows (B, ...) of each process to the batch (R B, ...)."""
    if world_size() == 1:
        return tensor
    by_process: Tensor = gather(tensor).unflatten(0, (world_size(), -1))  # (R, B, ...)
    return by_process.transpose(0, 1).flatten(0, 1)


def parallel_map(parts: Sequence[Tensor], compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute the rows (N, ...) of all parts in order, each process its share.

    parts: `compute` gives a row for each number in a part; all parts but the last have the same length.
    """
    if world_size() == 1:
        return torch.cat([compute(part) for part in parts])
    share = -(-len(parts) // world_size())
    filled = [*parts, *[parts[0]] * (share * world_size() - len(parts))]  # the rows of the last ones are cut off
    own = torch.cat([compute(part) for part in filled[rank() * share : (rank() + 1) * share]])
    rows = own.new_zeros((share * len(parts[0]), *own.shape[1:]))
    rows[: len(own)] = own
    return gather(rows)[: sum(len(part) for part in parts)]


def wrap_ddp(module: nn.Module, sync_batch_norm: bool) -> nn.Module:
    """Wrap a module in DDP, with shared batch statistics where they are wanted."""
    if sync_batch_norm:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if world_size() == 1:
        return module
    parallel = DistributedDataParallel(module)
    parallel.broadcast_buffers = False  # banks agree anyway, and batch statistics are those of the first process
    return parallel


def sync_gradients(module: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Add up gradients in each process, and average them at the last batch."""
    if is_last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    no_sync: AbstractContextManager[None] = module.no_sync()
    return no_sync


def share_buffers(module: nn.Module) -> None:
    """Copy the buffers of the first process, such as batch statistics."""
    if world_size() == 1:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def broadcast_object(value: T) -> T:
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


def reduce_max(numbers: Sequence[int], device: torch.device) -> list[int]:
    """Return the largest of all processes' numbers at each place, in every process."""
    tensor = torch.tensor(numbers, device=device)
    if world_size() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [int(number) for number in tensor.tolist()]


def reduce_mean(tensor: Tensor) -> Tensor:
    """Average a tensor over all processes."""
    if world_size() == 1:
        return tensor
    return gather(tensor[None]).mean(dim=0)
