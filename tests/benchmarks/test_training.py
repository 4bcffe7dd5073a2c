"""Of benchmarks/teacher_cache.py, benchmarks/input_pipeline.py, benchmarks/epoch.py, benchmarks/stage2.py,
benchmarks/setting.py, benchmarks/on_gpu.py and benchmarks/reference.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import epoch, input_pipeline, on_gpu, reference, setting, stage2, teacher_cache

SMALL = (
    "teacher.arch=resnet8",
    "student.arch=resnet8",
    "losses.crd.num_negatives=32",
    "losses.crd.dim=8",
    "training.batch_size=16",
    "training.epochs=4",
    "methods.two_stage.stage2.epochs=2",
    "precision=float32",
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    full = setting.cifar_config

    def config(folder: Path, *overrides: str):
        return full(folder, *overrides, *SMALL)

    for module in (epoch, input_pipeline, stage2, teacher_cache):
        monkeypatch.setattr(module, "cifar_config", config)
    for module in (epoch, input_pipeline):
        monkeypatch.setattr(module, "TRAIN", 200)
    monkeypatch.setattr(epoch, "TEST", 20)
    monkeypatch.setattr(epoch, "STEPS", 1)
    monkeypatch.setattr(epoch, "TURNS", 1)
    monkeypatch.setattr(epoch, "PUBLISHED_BATCH", 8)
    monkeypatch.setattr(epoch, "PUBLISHED_STEPS", 1)
    monkeypatch.setattr(epoch, "TORCHVISION_STEPS", 1)
    monkeypatch.setattr(teacher_cache, "IMAGES", 20)
    monkeypatch.setattr(teacher_cache, "REPEATS", 1)
    monkeypatch.setattr(input_pipeline, "PUBLISHED_BATCHES", 2)
    monkeypatch.setattr(input_pipeline, "BATCH", 10)
    monkeypatch.setattr(input_pipeline, "AUGMENTED", 20)
    monkeypatch.setattr(input_pipeline, "TURNS", 1)
    monkeypatch.setattr(input_pipeline, "copy_rate", lambda: 1e9)
    monkeypatch.setattr(reference, "WORKERS", 0)  # in this process
    for module in (epoch, teacher_cache, stage2):
        monkeypatch.setattr(module, "matrix_rate", lambda dtype, **_: 1e9)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12's, of torch's workers
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more than this machine's cores
@pytest.mark.parametrize(
    ("module", "case"),
    [(module, case) for module in (epoch, input_pipeline, teacher_cache) for case in module.CASES],
)
def test_each_case_is_measured(module, case):
    timings = module.run(case)
    assert all(timing.seconds >= timing.fastest > 0 for timing in timings)
    assert all(timing.floor is None or timing.floor > 0 for timing in timings)


def test_stage_2_is_measured_by_its_own_command(tmp_path):
    alone, timing = stage2.both(tmp_path, 60, 20)
    assert timing.name == "2 epochs" and timing.seconds > 0 and alone.seconds > 0
    assert len(list(tmp_path.glob("teacher-*/view*.npy"))) > 0
    assert (tmp_path / "run/seed0/two_stage/stage2/result.json").exists()


def test_every_round_caches_one_view_more(tmp_path):
    config = setting.cifar_config(tmp_path, *SMALL)
    experiment = setting.random_experiment(config, tmp_path, 20, 0)
    call = teacher_cache.caching(experiment, teacher_cache.make_teacher(experiment))
    for views in (1, 2):
        call()
        assert len(list(tmp_path.glob("teacher-*/view*.npy"))) == views


def test_images_go_through_pillow_as_published():
    images = setting.random_images(6)
    data = reference.PillowImages.of(images, num_negatives=3)
    image, label, index, drawn = data[4]
    assert (image.shape, image.dtype, label, index) == ((3, 32, 32), torch.float32, 4, 4)
    assert drawn[0] == 4 and len(set(drawn.tolist())) == 4
    assert np.array_equal(data.pixels[4].transpose(2, 0, 1), images.pixels[4])


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_gpu_is_measured_by_its_own_command(device, capsys, monkeypatch):
    for name, value in {"B": 8, "N": 400, "K": 64, "D": 16, "CLASSES": 5, "REPEATS": 1}.items():
        monkeypatch.setattr(on_gpu, name, value)
    monkeypatch.setattr(on_gpu, "matrix_rate", lambda dtype, **_: 1e9)
    monkeypatch.setattr(on_gpu, "compute_reproducibly", lambda device: None)
    monkeypatch.setattr(reference, "workers", lambda device: 0)
    on_gpu.main(torch.device(device))
    printed = capsys.readouterr().out
    assert printed.count("x as fast as published") == 2
    assert "stage 1 epoch, from a bank" in printed and "stage 1 epoch, by regression" in printed
    assert ("plain training, captured" in printed) is (device == "cuda")
    assert "nan" not in printed
