"""Of models/compiling.py and training/setup.py."""

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
from models.connector import ConnectedStudent, ConnectorSizes
from models.taps import TappedModel, read_head_inputs
from models.zoo import build_model
from study.sharing import compute_fingerprint
from training import setup
from training.job_name import TEACHER, JobName
from training.setup import train_stage

# dynamo looks at .grad of what is no leaf, and is silent where warnings are no errors
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
STAGE1 = JobName("two_stage", 0, 1)
TAPS = ["layer2.0", "fc:input"]
SIDE = 16


def build_pair() -> tuple[TappedModel, TappedModel, list[str]]:
    """Return a network with its taps, the same with blocks compiled except for code, and names of the blocks."""
    torch.manual_seed(0)
    plain = build_model("resnet8", 4, image_size=SIDE)
    compiled = copy.deepcopy(plain)
    names = compile_blocks(compiled, TAPS, backend="eager")
    return TappedModel(plain, TAPS), TappedModel(compiled, TAPS), names


def test_blocks_without_taps_are_compiled_under_their_names() -> None:
    plain, compiled, names = build_pair()
    assert names == ["layer1", "layer2.0.downsample", "layer3"]  # layer2.0 and fc are read
    assert list(compiled.state_dict()) == list(plain.state_dict())
    found = [name for name, module in compiled.model.named_modules() if module._compiled_call_impl is not None]
    assert found == names
    taps = ["layer2.0:map", "layer3.0.conv1:input:map"]
    names = compile_blocks(build_model("resnet8", 4), taps, backend="eager")
    assert names == ["layer1", "layer2.0.downsample", "layer3.0.downsample"]


def test_a_connected_students_last_map_is_not_compiled_away() -> None:
    sizes = ConnectorSizes("layer3.0:map", (64, 4, 4), (8, 4, 4), 3)
    names = compile_blocks(ConnectedStudent(build_model("resnet8", 4), sizes), ["connector:map"], backend="eager")
    assert names == ["student.layer1", "student.layer2", "student.layer3.0.downsample"]


def test_compiled_taps_gradients_and_statistics_are_the_same() -> None:
    plain, compiled, _ = build_pair()
    images = torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for step in range(3):  # hooks are new in every step
        outputs = [model.train()(images * (step + 1)) for model in (plain, compiled)]
        torch.testing.assert_close(outputs[0], outputs[1])
        for output in outputs:
            (output.logits.square().sum() + sum(tap.square().sum() for tap in output.taps)).backward()
    for (name, own), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, msg=name)
    torch.testing.assert_close(plain.state_dict(), compiled.state_dict())


def test_compiled_head_inputs_and_copies_work(make_experiment) -> None:
    plain, compiled, _ = build_pair()
    images, machine = torch.randn(3, 3, SIDE, SIDE), make_experiment().machine
    own, other = (read_head_inputs(model.eval().model, images, machine) for model in (plain, compiled))
    torch.testing.assert_close(own, other)
    twin = copy.deepcopy(compiled.model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(images).any() and compiled.model(images).any()


def test_a_network_without_blocks_gets_a_warning(capsys) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2))
    assert compile_blocks(model, ["1"]) == []
    assert "nothing of it is compiled" in capsys.readouterr().err


def test_a_missing_compiler_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="compile=true needs a C.. compiler"):
        check_compiler(torch.device("cpu"))
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="compile=true needs triton"):
        check_compiler(torch.device("cuda"))


def test_training_on_compiled_blocks_gives_the_same_weights(make_experiment, tmp_path, monkeypatch) -> None:
    ends, blocks = [], []

    def compile_eagerly(model, taps):  # up to torch's tracing, which is quick
        blocks.append(compile_blocks(model, taps, backend="eager"))

    monkeypatch.setattr(setup, "compile_blocks", compile_eagerly)
    monkeypatch.setattr("training.teacher_outputs.compile_blocks", compile_eagerly)
    for compiles in (False, True):
        short = ("training.epochs=2", "teacher.epochs=1", "methods=[two_stage]")
        experiment = make_experiment(*short, runs=tmp_path / str(compiles))
        experiment = replace(experiment, machine=replace(experiment.machine, compile=compiles))
        train_stage(experiment, TEACHER)
        train_stage(experiment, STAGE1)
        ends.append(load(experiment.folder.get_job(STAGE1).model))
    assert blocks == [["layer1", "layer2", "layer3"], *[["layer1", "layer2.0.downsample", "layer3"]] * 2]
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_what_torch_cannot_compile_is_one_line(make_experiment, monkeypatch) -> None:
    experiment = make_experiment()
    experiment = replace(experiment, machine=replace(experiment.machine, compile=True))
    monkeypatch.setattr(setup, "compile_blocks", lambda *_: None)

    def fail(*_):
        raise torch._dynamo.exc.TorchRuntimeError("no such kernel\nand much more")

    monkeypatch.setattr(setup, "fit", fail)
    with pytest.raises(MachineError, match=r"^compile=true: .*no such kernel\): use compile=false$"):
        train_stage(experiment, TEACHER)


@pytest.mark.parametrize("setting", ["compile=true", "cuda_graphs=true"])
def test_faster_runs_have_their_own_fingerprint(make_experiment, setting) -> None:
    plain, faster = make_experiment(), make_experiment(setting)
    for job in (TEACHER, STAGE1):
        assert compute_fingerprint(plain.config, job) != compute_fingerprint(faster.config, job)


def test_compile_and_cuda_graphs_exclude_each_other(make_experiment) -> None:
    with pytest.raises(UserError, match="compile and cuda_graphs do not go together"):
        make_experiment("cuda_graphs=true", "compile=true")


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler, which torch.compile needs")
@pytest.mark.filterwarnings("ignore")  # torch's own, about the machine
def test_compiled_code_computes_the_same() -> None:
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
