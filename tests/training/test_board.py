from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from configs.reading import load_config
from dataset.loader import training_batches
from training.board import confusion, drawn, hyperparameters, shown_images
from training.job_name import TEACHER, baseline, stage1, stage2
from training.phases import jobs_of, run_jobs


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    """An experiment whose teacher, stage 1, stage 2 and scratch baseline are finished."""
    from dataset.prepare import prepare
    from dataset.sources import load_source
    from models.machine import Machine
    from training.experiment import Experiment
    from training.run_folder import RunFolder

    config = load_config(tiny_config, ["baselines.methods=[scratch]"])
    machine = Machine(torch.device("cpu"), bfloat16=False, quiet=True)
    data = prepare(load_source(config.data), config.data, machine.device, config.shortcut)
    experiment = Experiment(config, data, machine, RunFolder(tmp_path_factory.mktemp("board") / "tiny"))
    run_jobs(jobs_of("all", config, experiment.folder), experiment)
    return experiment


def events_of(experiment, name) -> EventAccumulator:
    return EventAccumulator(str(experiment.folder.job(name).path), size_guidance={"images": 0}).Reload()


def pictures(found: EventAccumulator, title: str) -> list[np.ndarray]:
    tags = sorted(tag for tag in found.Tags()["images"] if tag.startswith(title))
    encoded = [found.Images(tag)[0].encoded_image_string for tag in tags]
    return [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in encoded]


def settings_of(found: EventAccumulator) -> dict[str, object]:
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    told = HParamsPluginData.FromString(content).session_start_info.hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in told.items()}


def test_a_finished_training_shows_its_settings_with_what_they_reached(trained):
    found = events_of(trained, stage2(0))
    settings, result = settings_of(found), trained.folder.job(stage2(0)).result()
    assert settings["kd.optimizer.lr"] == pytest.approx(0.01) and settings["job"] == "stage2"
    assert settings["data.source"] == "folder" and not any(key.startswith("baselines") for key in settings)
    assert found.Scalars("result/test_top1")[0].value == pytest.approx(result["test_top1"])
    metrics = HParamsPluginData.FromString(
        found.summary_metadata["_hparams_/experiment"].plugin_data.content
    ).experiment.metric_infos
    assert {"result/test_top1", "result/test_loss"} <= {metric.name.tag for metric in metrics}
    (text,) = found.Tensors("config/text_summary")
    (told,) = text.tensor_proto.string_val
    assert told.decode().startswith("```yaml\nname: tiny")
    assert len(found.Scalars("loss")) == 2  # the curves are still there


def test_stage_1_has_images_and_no_confusions_and_the_teacher_has_both(trained):
    first, teacher = events_of(trained, stage1(0)), events_of(trained, TEACHER)
    (grid,) = pictures(first, "augmented")  # two rows of eight images
    assert grid.shape == (2 * 16, 8 * 16, 3) and pictures(first, "confusion") == []
    assert "result/cosine_last" in first.Tags()["scalars"] and settings_of(first)["job"] == "stage1"
    assert len(pictures(teacher, "confusion")) == 1 and settings_of(teacher)["seed"] == -1


def test_the_images_are_those_that_are_trained_on_not_normalised(trained):
    shown = shown_images(trained, trained.config, baseline(0, "scratch"))
    batch = next(training_batches(trained.data, 16, 0, 0, 0))
    raw = trained.data.train.raw(batch.indices).float() / 255
    assert shown.shape == raw.shape and shown.min() >= 0 and shown.max() <= 1
    plain = [
        any(torch.allclose(one, other, atol=1e-5) for other in (image, image.flip(2)))
        for one, image in zip(shown[:, :, 4:-4, 4:-4], raw[:, :, 4:-4, 4:-4], strict=True)
    ]
    assert not all(plain)  # cropped: moved by up to two pixels
    first = pictures(events_of(trained, baseline(0, "scratch")), "augmented")[0][:16, :16]
    assert np.abs(first / 255 - shown[0].permute(1, 2, 0).numpy()).max() < 0.01


def test_confusions_are_counts_of_the_test_images(trained):
    name = baseline(0, "scratch")
    folder = trained.folder.job(name)
    found = confusion(trained, trained.config, name, folder)
    assert found.sum(axis=1).tolist() == [8, 8, 8, 8]
    assert np.trace(found) / found.sum() == pytest.approx(folder.result()["test_top1"])


def test_a_picture_is_dark_where_a_class_is_answered_and_any_name_can_be_drawn():
    picture = drawn(np.diag([5, 5]), ["猫", "$x_1$"])
    assert picture.shape == (3, 600, 600) and 0 <= picture.min() < 0.2 and picture.max() == 1
    assert drawn(np.zeros((40, 40), dtype=int), [str(number) for number in range(40)]).shape == (3, 600, 600)


def test_hyperparameters_are_what_a_training_depends_on(tiny_config):
    config = load_config(tiny_config, ["shortcut.cue=patch"])
    teacher, kd = hyperparameters(config, TEACHER), hyperparameters(config, baseline(3, "kd"))
    assert "teacher.epochs" in teacher and not any(key.startswith(("kd.", "crd.")) for key in teacher)
    assert kd["seed"] == 3 and kd["shortcut.cue"] == "patch" and kd["kd.alpha"] == config.kd.alpha
    assert all(isinstance(value, bool | str | int | float) for value in kd.values())
