from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import nn

import main
from errors import MachineError, warn
from models.captured import GraphedForward, capture_passes, release_passes
from models.machine import Machine
from models.taps import TappedModel
from models.zoo import build_model


def make_images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16)


@pytest.fixture
def captures(monkeypatch) -> list[nn.Module]:
    """Stand in for a GPU: a captured module runs a few times first, as with CUDA, and is then called as it is."""
    made: list[nn.Module] = []

    def capture(module: nn.Module, arguments: tuple[torch.Tensor, ...], allow_unused_input: bool) -> nn.Module:
        for _ in range(3):
            module(*arguments)
        made.append(module)
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))
    return made


def test_each_batch_size_with_gradients_is_captured_once(captures) -> None:
    model = build_model("resnet8", 5).train()
    capture_passes(model)
    with torch.no_grad():
        model(make_images(3))
    assert not captures
    for size in (4, 4, 2, 4):
        assert model(make_images(size)).requires_grad
    capture_passes(model)
    model(make_images())
    assert len(captures) == 2


def test_released_networks_keep_no_graph(captures) -> None:
    model = build_model("resnet8", 5).train()
    capture_passes(model)
    model(make_images())
    left = weakref.ref(captures.pop())
    release_passes(model)
    assert left() is None and not isinstance(model.forward, GraphedForward)
    assert model(make_images()).requires_grad and not captures


def test_capture_leaves_statistics_and_random_numbers(captures) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    plain = copy.deepcopy(model)
    capture_passes(model)
    images, ends = make_images(), []
    for one in (plain, model):
        torch.manual_seed(1)
        ends.append([one(images), one(images)])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, AssertionError])
def test_a_network_that_cannot_be_captured_is_named(monkeypatch, captures, error) -> None:
    def refuse(*_, **__):
        raise error("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    model = TappedModel(build_model("resnet8", 5), ["layer2", "fc:input"]).train()
    capture_passes(model)
    message = r"^cuda_graphs=true: a GPU cannot capture CifarResNet \(.*is capturing\): use cuda_graphs=false$"
    with pytest.raises(MachineError, match=message):
        model(make_images())


def test_cuda_graphs_without_a_gpu_get_a_warning(capsys) -> None:
    warn.cache_clear()
    assert not main.has_cuda_graphs(torch.device("cpu"))
    assert "cuda_graphs=true is ignored: it needs a GPU" in capsys.readouterr().err


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_captured_passes_are_those_of_the_layers(dtype) -> None:
    machine = Machine(torch.device("cuda"), bfloat16=dtype == "bfloat16")
    torch.manual_seed(0)
    plain = machine.place(build_model("resnet8", 5)).train()
    replayed = copy.deepcopy(plain)
    networks = [TappedModel(model, ["layer2", "fc:input"]).train() for model in (plain, replayed)]
    capture_passes(networks[1])
    for _ in range(4):
        images = torch.randn(8, 3, 16, 16, device="cuda")
        for network in networks:
            with machine.autocast():
                out = network(images)
                loss = out.logits.square().sum() + sum(tap.square().mean() for tap in out.taps)
            loss.backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter -= 0.01 * parameter.grad
                    parameter.grad = None
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(replayed.state_dict()[name], value, rtol=1e-4, atol=1e-5)


class DataDependent(nn.Module):
    """Decides by a value that the CPU reads from the GPU, which no graph can hold."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 2)

    def forward(self, images):
        return self.layer(images.flatten(1)) * (2 if images.mean().item() > 5 else 1)


@pytest.mark.cuda
def test_a_gpu_refuses_data_dependent_networks() -> None:
    network = DataDependent().cuda()
    capture_passes(network)
    with pytest.raises(MachineError, match="a GPU cannot capture DataDependent"):
        network(make_images().cuda())
