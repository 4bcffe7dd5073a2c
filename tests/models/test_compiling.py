"""Of models/compiling.py, and training/prepared.py."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from errors import MachineError, UserError
from models import compiling
from models.checkpoint import load
from models.compiling import COMPILERS, check_compiler, compile_blocks
from models.taps import TappedModel, read_head_inputs
from models.zoo import build_model
from training import prepared
from training.job_name import TEACHER, JobName
from training.prepared import train

# dynamo looks at .grad of what is no leaf, and is silent where warnings are no errors
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
CPU = torch.device("cpu")
STAGE1 = JobName("two_stage", 0, 1)
TAPS = ["layer2.0", "fc:input"]
SIDE = 16


def pair() -> tuple[TappedModel, TappedModel, list[str]]:
    """A network with its taps, and the same compiled as far as no code is made, with the names of its blocks."""
    torch.manual_seed(0)
    plain = build_model("resnet8", 4, image_size=SIDE)
    compiled = copy.deepcopy(plain)
    names = compile_blocks(compiled, TAPS, backend="eager")
    return TappedModel(plain, TAPS), TappedModel(compiled, TAPS), names


def test_blocks_without_taps_are_compiled_and_nothing_is_named_otherwise():
    plain, compiled, names = pair()
    assert names == ["layer1", "layer2.0.downsample", "layer3"]  # layer2.0 and fc are read
    assert list(compiled.state_dict()) == list(plain.state_dict())
    found = [name for name, module in compiled.model.named_modules() if module._compiled_call_impl is not None]
    assert found == names
    as_maps = compile_blocks(
        build_model("resnet8", 4), ["layer2.0:map", "layer3.0.conv1:input:map"], backend="eager"
    )
    assert as_maps == ["layer1", "layer2.0.downsample", "layer3.0.downsample"]


def test_taps_gradients_and_statistics_are_those_of_the_network_as_it_is():
    plain, compiled, _ = pair()
    images = torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for step in range(3):  # hooks are new in every step
        outputs = [model.train()(images * (step + 1)) for model in (plain, compiled)]
        torch.testing.assert_close(outputs[0], outputs[1])
        for output in outputs:
            (output.logits.square().sum() + sum(tap.square().sum() for tap in output.taps)).backward()
    for (name, own), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, msg=name)
    torch.testing.assert_close(plain.state_dict(), compiled.state_dict())


def test_what_the_classifier_reads_can_be_seen_and_a_copy_is_a_network_of_its_own(make_experiment):
    plain, compiled, _ = pair()
    images, machine = torch.randn(3, 3, SIDE, SIDE), make_experiment().machine
    own, other = (read_head_inputs(model.eval().model, images, machine) for model in (plain, compiled))
    torch.testing.assert_close(own, other)
    twin = copy.deepcopy(compiled.model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(images).any() and compiled.model(images).any()


def test_a_network_of_layers_alone_is_left_with_a_word(capsys):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2))
    assert compile_blocks(model, ["1"]) == []
    assert "nothing of it is compiled" in capsys.readouterr().err


def test_no_compiler_is_said_before_anything_is_done(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="compile=true needs a C.. compiler"):
        check_compiler(CPU)
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="compile=true needs triton"):
        check_compiler(torch.device("cuda"))


@pytest.fixture
def without_code(monkeypatch):
    """Compiling as far as torch's tracing, which takes a moment; gives the blocks of each network."""
    found = []

    def compile_eagerly(model, taps):
        found.append(compile_blocks(model, taps, backend="eager"))

    monkeypatch.setattr(prepared, "compile_blocks", compile_eagerly)
    monkeypatch.setattr("training.teacher_outputs.compile_blocks", compile_eagerly)
    return found


def test_a_training_on_compiled_blocks_ends_where_it_did(make_experiment, tmp_path, without_code):
    ends = []
    for compiles in (False, True):
        short = ("training.epochs=2", "teacher.epochs=1", "methods=[two_stage]")
        experiment = make_experiment(*short, runs=tmp_path / str(compiles))
        experiment = replace(experiment, machine=replace(experiment.machine, compile=compiles))
        train(experiment, TEACHER)
        train(experiment, STAGE1)
        ends.append(load(experiment.folder.job(STAGE1).model))
    assert without_code == [["layer1", "layer2", "layer3"], *[["layer1", "layer2.0.downsample", "layer3"]] * 2]
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_what_torch_cannot_compile_is_one_line(make_experiment, monkeypatch):
    experiment = make_experiment()
    experiment = replace(experiment, machine=replace(experiment.machine, compile=True))
    monkeypatch.setattr(prepared, "compile_blocks", lambda *_: None)

    def fails(*_):
        raise torch._dynamo.exc.TorchRuntimeError("no such kernel\nand much more")

    monkeypatch.setattr(prepared, "fit", fails)
    with pytest.raises(MachineError, match=r"^compile=true: .*no such kernel\): use compile=false$"):
        train(experiment, TEACHER)


def test_compiled_runs_are_other_runs(make_experiment):
    from study.sharing import fingerprint

    plain, compiled = make_experiment(), make_experiment("compile=true")
    for job in (TEACHER, STAGE1):
        assert fingerprint(plain.config, job) != fingerprint(compiled.config, job)


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler, which torch.compile needs")
@pytest.mark.filterwarnings("ignore")  # torch's own, of what it finds on a machine
def test_code_that_is_made_computes_the_same():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    plain = nn.Sequential(block, nn.Linear(5, 3))
    compiled = copy.deepcopy(plain)
    assert compile_blocks(compiled, []) == ["0"]
    images = torch.randn(4, 6)
    torch.testing.assert_close(compiled(images), plain(images))
    compiled(images).sum().backward()
    plain(images).sum().backward()
    torch.testing.assert_close(compiled[0][0].weight.grad, plain[0][0].weight.grad)
