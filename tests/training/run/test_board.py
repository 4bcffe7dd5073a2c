from __future__ import annotations

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from settings.reading import load_config
from training.job_name import TEACHER, JobName
from training.phases import jobs_of, run_jobs
from training.run.board import list_settings

FIRST, SECOND = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    """An experiment whose teacher, both stages and one method of one stage are finished."""
    from dataset.prepare import prepare
    from dataset.sources import load_source
    from models.machine import Machine
    from training.experiment import Experiment
    from training.run.run_folder import RunFolder

    config = load_config(tiny_config, ["methods=[two_stage, scratch]"])
    machine = Machine(torch.device("cpu"), bfloat16=False, quiet=True)
    data = prepare(load_source(config.data), config.data, machine.device, config.shortcut)
    experiment = Experiment(config, data, machine, RunFolder(tmp_path_factory.mktemp("board") / "tiny"))
    run_jobs(jobs_of("all", config, experiment.folder), experiment)
    return experiment


def events_of(experiment, name) -> EventAccumulator:
    return EventAccumulator(str(experiment.folder.job(name).path)).Reload()


def settings_of(found: EventAccumulator) -> dict[str, object]:
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    told = HParamsPluginData.FromString(content).session_start_info.hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in told.items()}


def test_a_finished_training_shows_its_settings_with_what_they_reached(trained):
    found = events_of(trained, SECOND)
    settings, result = settings_of(found), trained.folder.job(SECOND).result()
    assert settings["stage.optimizer.lr"] == pytest.approx(0.01) and settings["job"] == "two_stage/stage2"
    assert settings["stage.train"] == "last_block" and settings["stage.losses.kl.weight"] == pytest.approx(0.9)
    assert settings["data.source"] == "folder" and not any(key.startswith("methods") for key in settings)
    assert found.Scalars("result/test_top1")[0].value == pytest.approx(result["test_top1"])
    metrics = HParamsPluginData.FromString(
        found.summary_metadata["_hparams_/experiment"].plugin_data.content
    ).experiment.metric_infos
    assert {"result/test_top1", "result/test_loss"} <= {metric.name.tag for metric in metrics}
    assert len(found.Scalars("loss")) == 2 == len(found.Scalars("kl"))  # the curves are still there


def test_features_show_their_alignment_and_the_teacher_has_no_seed(trained):
    first, teacher = events_of(trained, FIRST), events_of(trained, TEACHER)
    tags = first.Tags()["scalars"]
    assert {"result/cosine_last", "crd_last", "cka_penultimate"} <= set(tags) and "result/test_top1" not in tags
    assert settings_of(first)["job"] == "two_stage/stage1" and settings_of(teacher)["seed"] == -1


def test_settings_are_what_a_training_depends_on(tiny_config):
    config = load_config(tiny_config, ["shortcut.cue=patch"])
    teacher, kd = list_settings(config, TEACHER), list_settings(config, JobName("kd", 3))
    assert teacher["teacher.epochs"] == teacher["stage.epochs"] == 2 and kd["stage.epochs"] == 4
    assert kd["seed"] == 3 and kd["shortcut.cue"] == "patch" and kd["stage.losses.kl.weight"] == 0.9
    assert not any(key.startswith("shortcut") for key in list_settings(load_config(tiny_config), TEACHER))
    assert all(isinstance(value, bool | str | int | float) for value in kd.values())
