"""Fuzzing weights and checkpoints: bytes changed, and dicts of odd names, shapes, types and layouts."""

from __future__ import annotations

import io
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from models.checkpoint import load, load_newest, load_weights, previous_of, save, save_and_keep
from tests.faults.fuzz import Result, Target
from tests.faults.mutations import CHANGES, VALUES, Change, changed
from tests.faults.small_place import Place
from training.progress import Part, Training
from training.run.checkpointer import JobCheckpointer
from training.run.job_folder import JobFolder
from training.stepping import Stepper

DTYPES = [
    *(torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool),
    *(torch.complex64, torch.float8_e4m3fn, torch.uint16),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def odd_tensors(tensor: Tensor) -> list[Any]:
    """What may stand in a tensor's place."""
    flat = tensor.reshape(-1).float()
    return [
        *(tensor.to(dtype) for dtype in DTYPES),
        *(
            torch.full_like(flat, value).view_as(tensor)
            for value in (torch.nan, torch.inf, -torch.inf, -1.0, 1e38)
        ),
        tensor.reshape(-1, 1),
        tensor.unsqueeze(0),
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(1).expand(2**40),
        tensor[..., None].expand(*tensor.shape, 1).squeeze(-1),
        tensor.flatten().flip(0).view_as(tensor),
        nn.Parameter(tensor.float()),
        tensor.float().to_sparse(),
        torch.empty_like(tensor, device="meta"),
        torch.quantize_per_tensor(flat, 0.1, 0, torch.qint8).view_as(tensor),
        torch.nested.nested_tensor([flat, flat[:1]]) if flat.numel() > 1 else torch.zeros(3),
        flat.tolist(),
        None,
        "a tensor",
        {"weight": tensor},
    ]


Step = tuple[str, int, int, Any]  # how, of which tensor, by which of `odd_tensors`, under which name
WRAPS: list[Any] = ["plain", "state_dict", "model", "beside"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["replace"] * 4 + ["remove", "rename", "prefix", "double"]),
        st.integers(0, 8),
        st.integers(0, 40),
        st.text(max_size=5) | st.integers(0, 3) | st.tuples(st.integers(0, 3)),
    ),
    min_size=1,
    max_size=3,
)


def odd_weights(steps: list[Step], wrap: str) -> dict[Any, Any]:
    """A state dict with tensors replaced, removed, renamed or doubled, perhaps under a key."""
    state: dict[Any, Any] = dict(network().state_dict())
    for how, which, by, new in steps:
        name = sorted(state, key=str)[which % len(state)]
        small = isinstance(state[name], Tensor) and not state[name].is_nested and state[name].numel() < 1000
        if how == "replace" and small:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of kinds that torch is about to drop
                parts = odd_tensors(torch.ones(state[name].shape))
            state[name] = parts[by % len(parts)]
        elif how == "remove" and len(state) > 1:
            del state[name]
        elif how == "rename":
            state[new] = state[name]
        elif how == "prefix":
            state[f"module.{name}"] = state.pop(name)
        elif how == "double":
            state[f"module.{name}"] = torch.zeros(3)
    wraps = {"plain": state, "state_dict": {"state_dict": state}, "model": {"model": state, "epoch": 3}}
    return wraps.get(wrap, {"model": 1, **state})


IN_PART = ("rate", "steps", "seconds", "processes")


def targets(place: Place) -> list[Target]:
    folder = place.folder / "weights"
    folder.mkdir()
    file = io.BytesIO()
    torch.save(network().state_dict(), file)
    states = st.dictionaries(st.text(max_size=8), VALUES, max_size=3) | VALUES
    parts = st.sampled_from(["objective", "optimizer", "schedule", "history", "best", "part", *IN_PART])
    return [
        Target("weights, bytes", CHANGES, partial(_bytes, folder / "a.pt", file.getvalue()), 0.5),
        Target("weights, any bytes", st.binary(max_size=80), partial(_bytes, folder / "a.pt", b""), 0.5),
        Target(
            "weights, odd dicts", st.tuples(STEPS, st.sampled_from(WRAPS)), partial(_odd, folder / "a.pt"), 0.5
        ),
        Target("weights, any values", states, partial(_weights, folder / "a.pt"), 0.5),
        Target("checkpoints, bytes", st.tuples(CHANGES, CHANGES), partial(_checkpoints, folder / "c.pt"), 0.3),
        Target("checkpoint, odd parts", st.tuples(parts, VALUES), partial(_restore, folder / "job"), 0.3),
    ]


def _bytes(path: Path, whole: bytes, changes: list[Change] | bytes) -> Result:
    path.write_bytes(changes if isinstance(changes, bytes) else changed(whole, changes))
    model, right = nn.Sequential(*network().children()), network().state_dict()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    load_weights(model, path, "small")
    assert all(torch.equal(right[name], tensor) for name, tensor in model.state_dict().items())
    return "right"


def _odd(path: Path, given: tuple[list[Step], str]) -> Result:
    return _weights(path, odd_weights(*given))


def _weights(path: Path, content: Any) -> Result:
    """Weights that are taken are those that the file has under their names, as numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path)
    model = network()
    load_weights(model, path, "small")
    given = content
    for key in ("state_dict", "model"):
        given = given[key] if isinstance(given.get(key), dict) else given
    for name, tensor in model.state_dict().items():
        found = [given[key] for key in (name, f"module.{name}") if isinstance(given.get(key), Tensor)]
        assert len(found) == 1, f"{name} stands twice"
        assert torch.equal(found[0].detach().to(tensor.dtype), tensor) and torch.isfinite(tensor).all()
        assert found[0].is_floating_point() == tensor.is_floating_point(), name
    model.eval()(torch.ones(1, 3, 3, 3))
    return "right"


def _checkpoints(path: Path, given: tuple[list[Change], list[Change]]) -> Result:
    """Two checkpoints: the newer is found, or the older with a word, or both are refused."""
    for epoch in (1, 2):
        save_and_keep(path, {"epoch": epoch, "x": torch.full((5,), float(epoch))})
    newer, older = given
    path.write_bytes(changed(path.read_bytes(), newer))
    if len(older) > 1:
        previous_of(path).write_bytes(changed(previous_of(path).read_bytes(), older))
    state, found = load_newest(path)
    assert state["epoch"] == (2 if found == path else 1) and torch.equal(
        state["x"], torch.full((5,), state["epoch"])
    )
    return "right" if found == path else "the older"


def _restore(path: Path, given: tuple[str, Any]) -> Result:
    """A part of a checkpoint that is of another type is refused, with the network as it was or not used."""
    part, value = given
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    stepper = Stepper(optimizer, schedule, batches=5)
    training = Training(model, stepper, torch.device("cpu"), [{"epoch": 1, "loss": 0.5}])
    training.part = Part(0.1, steps=2, sums={"loss": torch.ones((), dtype=torch.float64)})
    folder, state = JobFolder(path), training.state()
    path.mkdir(exist_ok=True)
    if part in state["part"]:
        state["part"] = {**state["part"], part: value}
    else:
        state[part] = value
    save(folder.checkpoint, state)
    assert load(folder.checkpoint).keys() == state.keys()
    assert JobCheckpointer(folder).load(training)
    assert all(isinstance(line["epoch"], int) for line in training.history)
    assert training.best is None or isinstance(training.best, dict)
    assert training.part is None or 0 < training.part.steps <= 5
    return "right"
