from __future__ import annotations

import pickle
import shutil

import pytest
import torch


@pytest.fixture
def inputs(tmp_path, image_root):
    """A folder of things a person might hand in by mistake, and an empty one for runs."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "broken.yaml").write_text("crd: {epochs: 3\nkd: [", encoding="utf-8")
    (folder / "list.yaml").write_text("- crd\n- kd\n", encoding="utf-8")
    (folder / "pickled.pt").write_bytes(pickle.dumps({"model": image_root}))
    (folder / "text.pt").write_text("no weights", encoding="utf-8")
    torch.save({"fc.weight": torch.ones(10, 64)}, folder / "misfit.pt")
    shutil.copytree(image_root, folder / "images")
    (folder / "images" / "test" / "cedar" / "3.png").write_bytes(b"no image")
    (folder / "empty").mkdir()
    (tmp_path / "runs").mkdir()
    return folder


CASES = {
    "unknown key": ("all", ["crd.temprature=0.07"], "unknown key crd.temprature, did you mean 'crd.temperature'?"),
    "wrong type": ("all", ["crd.epochs=many"], "crd.epochs: "),
    "out of range": ("all", ["kd.alpha=1.5"], "kd.alpha: "),
    "no value": ("all", ["kd.alpha"], "--set kd.alpha: write KEY=VALUE"),
    "plateau without validation images": ("all", ["crd.until=plateau"], "data.val_fraction > 0"),
    "options that do not go together": ("all", ["crd.objective=infonce", "crd.negatives=batch"], "mode: instance"),
    "no teacher": ("crd", [], "there is no teacher: train one with --phase teacher"),
    "no teacher for a baseline": ("baselines", [], "there is no teacher"),
    "no such checkpoint": ("crd", ["teacher.checkpoint={}/none.pt"], "none.pt: no such file"),
    "state dict that does not fit": ("crd", ["teacher.checkpoint={}/misfit.pt"], "misfit.pt does not fit resnet8"),
    "pickled checkpoint": ("all", ["teacher.checkpoint={}/pickled.pt"], "save a state dict"),
    "text as checkpoint": ("all", ["teacher.checkpoint={}/text.pt"], "save a state dict"),
    "no data folder": ("all", ["data.root={}/none"], "none"),
    "empty data folder": ("all", ["data.root={}/empty"], "empty"),
    "unreadable image": ("all", ["data.root={}/images"], "images/test/cedar/3.png cannot be read as an image"),
    "too few images to split": ("all", ["data.val_fraction=0.001"], "data.val_fraction does not fit"),
    "unknown arch": ("teacher", ["student.arch=resnet9"], "unknown arch 'resnet9', did you mean 'resnet"),
    "unknown tap": ("all", ["student.taps=[layer3.0, layer9]"], "tap 'layer9' is no module of CifarResNet"),
    "weights that are not published": ("teacher", ["teacher.weights=DEFAULT"], "resnet8 has no published weights"),
    "weights of other classes": (
        "crd",
        ["teacher.arch=resnet18", "teacher.weights=DEFAULT"],
        "fine-tune them first",
    ),
    "unknown weights": ("all", ["student.arch=resnet18", "student.weights=BEST"], "resnet18 has IMAGENET1K_V1"),
}


def assert_one_line(done, message):
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert message in done.stderr


@pytest.mark.parametrize(("phase", "settings", "message"), CASES.values(), ids=CASES)
def test_one_line_exit_code_2_and_nothing_written(call_main, inputs, phase, settings, message):
    before = sorted(inputs.parent.rglob("*"))
    settings = [setting.format(inputs) for setting in settings]
    done = call_main(
        inputs.parent / "runs", "--phase", phase, "--set", f"data.cache_dir={inputs}/cache", *settings
    )
    assert_one_line(done, message)
    added = set(inputs.parent.rglob("*")) - set(before)
    assert all(inputs / "cache" in [path, *path.parents] for path in added)  # decoded images, and nothing else


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--phase", "all", "--config", "{}/none.yaml"], "none.yaml: No such file"),
        (["--phase", "all", "--config", "{}/broken.yaml"], "broken.yaml: not valid YAML"),
        (["--phase", "all", "--config", "{}/list.yaml"], "list.yaml: expected keys and values"),
        (["--phase", "all", "--device", "abacus"], "--device abacus: use auto, cpu, cuda or cuda:1"),
        (["--phase", "all", "--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["--phase", "all", "--seeds", "1", "1"], "seeds: each seed once"),
    ],
)
def test_the_same_for_files_and_devices(call_main, inputs, arguments, message):
    before = sorted(inputs.parent.rglob("*"))
    assert_one_line(call_main(inputs.parent / "runs", *(word.format(inputs) for word in arguments)), message)
    assert sorted(inputs.parent.rglob("*")) == before


def test_stage2_needs_stage1(call_main, tmp_path):
    assert call_main(tmp_path, "--phase", "teacher", "--quiet").returncode == 0
    before = sorted(tmp_path.rglob("*"))
    done = call_main(tmp_path, "--phase", "kd")
    assert_one_line(done, "there is no finished stage 1 for seed 0")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--phase", "crd"],
        ["--phase", "all", "--set", "data.root={}/images"],
        ["--phase", "all", "--set", "teacher.checkpoint={}/pickled.pt"],
    ],
)
def test_the_same_as_a_person_sees_it(run_main, inputs, arguments):
    before = sorted(inputs.parent.rglob("*"))
    done = run_main(inputs.parent / "runs", *(word.format(inputs) for word in arguments))
    assert_one_line(done, "error: ")
    assert done.stdout == ""
    assert sorted(inputs.parent.rglob("*")) == before
