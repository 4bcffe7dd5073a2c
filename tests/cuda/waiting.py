"""Find steps that wait for the GPU: by CUDA's own check, or on a CPU by following tensors that would be there.

Parameters, buffers and pixels would be on the GPU, and so would all that is computed from them. Where Python reads
a value of such a tensor, a GPU would make it wait. Copies from the CPU are not seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

ASKS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim", "_unique2"}
TO_PYTHON = ("cpu", "numpy", "tolist")  # which are no operations on a CPU


class TensorFollower(TorchDispatchMode):
    """Fail where Python reads a value of a tensor that would be on a GPU."""

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.there = WeakIdKeyDictionary()
        for tensor in there:
            self.there[tensor] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if any(self.holds(leaf) for leaf in tree_leaves((args, kwargs))):
            assert name not in ASKS, f"{name} reads a value"
            given = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(given):
                if isinstance(leaf, Tensor):
                    self.there[leaf] = True
            return given
        return func(*args, **(kwargs or {}))

    def holds(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and leaf in self.there


@contextmanager
def forbid_waiting(device: torch.device, there: Iterable[Tensor]) -> Iterator[None]:
    """Fail where Python waits for `device`.

    Args:
        device: where the steps run.
        there: tensors that are on a GPU from the beginning.
    """
    if device.type == "cuda":
        with warnings.catch_warnings():  # torch says that it does not see every wait
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return
    with TensorFollower(there) as followed, ExitStack() as patches:
        for name in TO_PYTHON:
            patches.enter_context(mock.patch.object(Tensor, name, _refuse(name, followed)))
        yield


def _refuse(name: str, followed: TensorFollower) -> Any:
    plain = getattr(Tensor, name)

    def convert(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        assert not followed.holds(tensor), f".{name}() reads values"
        return plain(tensor, *args, **kwargs)

    return convert
