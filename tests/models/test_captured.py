from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import nn

import main
from errors import MachineError, UserError, warn
from models.captured import Captured, capture_passes, release_passes
from models.machine import Machine
from models.taps import TappedModel
from models.zoo import build_model
from training.job_name import TEACHER, JobName

on_gpu = pytest.mark.cuda


@pytest.fixture
def captures(monkeypatch) -> list[nn.Module]:
    """Stands for a GPU: what is captured is run a few times first, as CUDA has it, and then called as it is."""
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


def test_each_size_of_batch_is_captured_once_and_only_where_gradients_are_wanted(captures):
    model = build_model("resnet8", 5).train()
    capture_passes(model)
    with torch.no_grad():
        model(torch.randn(3, 3, 16, 16))
    assert not captures
    for size in (4, 4, 2, 4):
        assert model(torch.randn(size, 3, 16, 16)).requires_grad
    assert len(captures) == 2
    capture_passes(model)
    model(torch.randn(4, 3, 16, 16))
    assert len(captures) == 2


def test_after_training_a_network_goes_layer_by_layer_and_nothing_of_a_graph_is_left(captures):
    model = build_model("resnet8", 5).train()
    capture_passes(model)
    model(torch.randn(4, 3, 16, 16))
    left = weakref.ref(captures.pop())
    release_passes(model)
    assert left() is None and not isinstance(model.forward, Captured)
    assert model(torch.randn(4, 3, 16, 16)).requires_grad and not captures


def test_capturing_leaves_batch_statistics_and_draws_as_they_would_be(captures):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    plain = copy.deepcopy(model)
    capture_passes(model)
    images, ends = torch.randn(4, 3, 8, 8), []
    for one in (plain, model):
        torch.manual_seed(1)
        ends.append([one(images), one(images)])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, AssertionError])
def test_a_network_that_cannot_be_captured_is_named(monkeypatch, captures, error):
    def refuse(*_, **__):
        raise error("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    model = TappedModel(build_model("resnet8", 5), ["layer2", "fc:input"]).train()
    capture_passes(model)
    told = r"^cuda_graphs=true: a GPU cannot capture CifarResNet \(.*is capturing\): use cuda_graphs=false$"
    with pytest.raises(MachineError, match=told):
        model(torch.ones(4, 3, 16, 16))


@on_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_captured_passes_are_those_of_the_layers(dtype):
    machine = Machine(torch.device("cuda"), bfloat16=dtype == "bfloat16")
    torch.manual_seed(0)
    plain = machine.place(build_model("resnet8", 5)).train()
    replayed = copy.deepcopy(plain)
    taps = ["layer2", "fc:input"]
    networks = [TappedModel(model, taps).train() for model in (plain, replayed)]
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


def test_captured_runs_are_other_runs_and_no_compiled_ones(make_experiment):
    from study.sharing import fingerprint

    plain, captured = make_experiment(), make_experiment("cuda_graphs=true")
    for job in (TEACHER, JobName("two_stage", 0, 1)):
        assert fingerprint(plain.config, job) != fingerprint(captured.config, job)
    with pytest.raises(UserError, match="compile and cuda_graphs do not go together"):
        make_experiment("cuda_graphs=true", "compile=true")


def test_without_a_gpu_a_word_says_that_nothing_is_captured(capsys):
    warn.cache_clear()
    assert not main.can_capture(torch.device("cpu"))
    assert "cuda_graphs=true is ignored: it needs a GPU" in capsys.readouterr().err


class Asking(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 2)

    def forward(self, images):
        return self.layer(images.flatten(1)) * (2 if images.mean().item() > 5 else 1)


@on_gpu
def test_a_gpu_that_cannot_capture_says_so():
    network = Asking().cuda()
    capture_passes(network)
    with pytest.raises(MachineError, match="a GPU cannot capture Asking"):
        network(torch.ones(4, 3, 16, 16, device="cuda"))
