from __future__ import annotations

import argparse
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from errors import UserError
from models.checkpoint import copy_weights, hash_weights, load, load_weights, save
from models.zoo import build_model


class Harmful:
    def __reduce__(self):
        return (print, ("ran code from a file",))


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_a_pickled_object_is_refused_and_not_run(tmp_path, protocol, capsys) -> None:
    plain, in_archive = tmp_path / "a.pkl", tmp_path / "b.pt"
    plain.write_bytes(pickle.dumps({"x": Harmful()}, protocol=protocol))
    torch.save({"x": Harmful()}, in_archive)
    for path in (plain, in_archive):
        with pytest.raises(UserError, match="no file of weights that can be read safely"):
            load(path)
    assert capsys.readouterr().out == ""


def test_an_unknown_class_is_named(tmp_path) -> None:
    torch.save({"model": {}, "cfg": Harmful}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"object of .*Harmful, which could run code\): save a state dict"):
        load(tmp_path / "a.pth")


def test_a_flipped_bit_is_refused_or_harmless(tmp_path) -> None:
    path = tmp_path / "model.pt"
    save(path, {"x": torch.ones(3), "y": {"z": 1}})
    whole, refused = path.read_bytes(), 0
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        try:
            found = load(path)
        except UserError:
            refused += 1
        else:
            assert torch.equal(found["x"], torch.ones(3)) and found["y"] == {"z": 1} and len(found) == 2
    assert refused > len(whole) // 2


def test_other_content_and_missing_files_are_refused(tmp_path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list, not a state dict"):
        load(tmp_path / "list.pt")
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="is no file: name a file of weights"):
        load(tmp_path)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.binary(max_size=60))
@example(b"0")
@example(b"]")
@example(b'"""A text file."""\nimport os\n')
def test_any_other_bytes_are_refused(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pt"
    path.write_bytes(content)
    with pytest.raises(UserError):
        load(path)


PROFILED = {"total_ops": torch.zeros(1), "model.0.total_params": torch.zeros(1)}  # buffers of a profiler


def build_network(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def add_prefix(prefix, weights):
    return {f"{prefix}{name}": value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("wrap", "messages"),
    [
        (lambda weights: weights, []),
        (lambda weights: {"state_dict": weights, "epoch": 3}, []),
        (lambda weights: {"model": weights, "optimizer": {"state": {}}}, []),
        (lambda weights: {"model_state_dict": add_prefix("module.", weights)}, ["left out 'module.'"]),
        *(
            (lambda weights, prefix=prefix: add_prefix(prefix, weights), [f"left out '{prefix}', with which all"])
            for prefix in ("module.", "model.", "_orig_mod.", "_orig_mod.module.")
        ),
        (
            lambda weights: add_prefix("model.", weights) | PROFILED,
            ["left out a profiler's counters (2 of", "left out 'model.'"],
        ),
    ],
)
def test_state_dicts_are_accepted_as_people_save_them(tmp_path, wrap, messages, capsys) -> None:
    source, target = build_network(), build_network()
    path = tmp_path / f"{hash(wrap)}.pt"  # a message is printed once
    torch.save(wrap(dict(source.state_dict())), path)
    load_weights(target, path, "net")
    assert hash_weights(target) == hash_weights(source)
    printed = capsys.readouterr().err
    assert all(f"{path}: {message}" in printed for message in messages) and printed.count("\n") == len(messages)


def test_the_networks_own_prefix_stays(tmp_path) -> None:
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = build_network()

    source, target = Wrapped(), Wrapped()
    save(tmp_path / "weights.pt", source.state_dict())
    load_weights(target, tmp_path / "weights.pt", "net")
    assert hash_weights(target) == hash_weights(source)


@pytest.mark.parametrize("plain", [False, True])
def test_mnasnet_loads_with_and_without_metadata(tmp_path, plain) -> None:
    # a state dict without versions is read as mnasnet's first, which had another stem
    source, target = build_model("mnasnet0_5", 3), build_model("mnasnet0_5", 3)
    content = copy_weights(source)
    assert content._metadata[""]["version"] == 2  # type: ignore[attr-defined]
    save(tmp_path / "weights.pt", dict(content) if plain else content)
    assert plain or load(tmp_path / "weights.pt")._metadata == source.state_dict()._metadata  # type: ignore[attr-defined]
    load_weights(target, tmp_path / "weights.pt", "mnasnet0_5")
    assert hash_weights(target) == hash_weights(source)
    target.load_state_dict(copy_weights(source))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (build_network(4).state_dict(), r"0.weight is (4, 2), not (3, 2)"),
        (
            nn.Sequential(nn.Linear(2, 3)).state_dict(),
            "it lacks 1.weight, 1.bias, 1.running_mean (5 missing, 0 unknown)",
        ),
        ({**build_network().state_dict(), "fc.bias": torch.ones(1)}, "it has fc.bias (0 missing, 1 unknown)"),
        ({0: torch.ones(1)}, "it lacks 0.weight, 0.bias, 1.weight and has 0 (7 missing, 1 unknown)"),
    ],
)
def test_a_misfit_is_one_line_and_changes_nothing(tmp_path, content, message) -> None:
    save(tmp_path / "weights.pt", content)
    model = build_network()
    before = hash_weights(model)
    with pytest.raises(UserError) as caught:
        load_weights(model, tmp_path / "weights.pt", "net")
    assert f"does not fit net: {message}" in str(caught.value) and "\n" not in str(caught.value)
    assert hash_weights(model) == before


def test_a_hash_is_of_all_values() -> None:
    model = build_network()
    before = hash_weights(model)
    model[1].num_batches_tracked += 1
    assert hash_weights(model) != before


@pytest.mark.parametrize("legacy", [False, True])
def test_options_and_numpy_scalars_beside_weights_load(tmp_path, legacy) -> None:
    model, wanted = build_model("resnet8", 10), build_model("resnet8", 10)
    options = argparse.Namespace(model="resnet8", learning_rate=np.float64(0.05), lr_decay_epochs=[150, 180])
    content = {"opt": options, "best_acc": np.float32(72.5), "epoch": np.int64(240), "model": wanted.state_dict()}
    torch.save(content, tmp_path / "resnet8_last.pth", _use_new_zipfile_serialization=not legacy)
    load_weights(model, tmp_path / "resnet8_last.pth", "resnet8")
    assert hash_weights(model) == hash_weights(wanted)


def test_scalars_written_by_numpy_1_load(tmp_path) -> None:
    content = pickle.dumps({"best_acc": np.float64(1.5), "w": 1}, protocol=2)
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        archive.writestr("b/data.pkl", content.replace(b"numpy._core", b"numpy.core"))
        archive.writestr("b/version", "3")
        archive.writestr("b/byteorder", "little")
    assert load(tmp_path / "b.pth") == {"best_acc": 1.5, "w": 1}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("classes", "side"), [(10, "student"), (7, "teacher")])
def test_a_whole_distiller_gives_the_fitting_side(tmp_path, prefix, classes, side, capsys) -> None:
    sides = {"student": build_model("resnet8", 10), "teacher": build_model("resnet8", 7)}
    weights = {}
    for name, network in sides.items():
        weights |= add_prefix(f"{prefix}{name}.", network.state_dict())
    torch.save({"epoch": 240, "model": weights, "best_acc": 72.5}, tmp_path / "latest")
    model = build_model("resnet8", classes)
    load_weights(model, tmp_path / "latest", "resnet8")
    assert hash_weights(model) == hash_weights(sides[side])
    assert f"took the {side}" in capsys.readouterr().err
