from __future__ import annotations

import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from errors import MachineError
from settings.reading import load_config
from tests.faults.test_disk import full_beyond
from training.job_name import TEACHER, JobName
from training.phases import list_phase_jobs, run_jobs
from training.run.tensorboard import list_settings, open_writer, write_scalars

FIRST, SECOND = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)


def read_events(folder) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def read_hparams(found: EventAccumulator) -> dict[str, object]:
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in hparams.items()}


def test_scalars_can_be_read(tmp_path) -> None:
    before = threading.excepthook
    with open_writer(tmp_path, 1) as writer:
        for epoch in (1, 2):
            write_scalars(writer, {"loss": 1 / epoch, "top1": 0.5}, epoch)
            assert len(read_events(tmp_path).Scalars("loss")) == epoch  # while the training runs
    assert [(one.step, one.value) for one in read_events(tmp_path).Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert threading.excepthook is before


def test_full_disk_gives_one_error(tmp_path, capsys) -> None:
    with (
        full_beyond(10),
        pytest.raises(MachineError, match=r"events\.out\.tfevents cannot be written .*file too large"),
        open_writer(tmp_path, 1) as writer,
    ):
        for epoch in range(200):
            write_scalars(writer, {"loss": 1.0}, epoch)
    assert capsys.readouterr().err == ""


def test_finished_trainings_show_settings_and_results(make_experiment) -> None:
    experiment = make_experiment("methods=[two_stage]")
    run_jobs(list_phase_jobs("all", experiment.config, experiment.folder), experiment)
    teacher, first, second = (read_events(experiment.folder.get_job(job).path) for job in (TEACHER, FIRST, SECOND))
    settings, result = read_hparams(second), experiment.folder.get_job(SECOND).read_result()
    assert settings["stage.optimizer.lr"] == pytest.approx(0.01) and settings["job"] == "two_stage/stage2"
    assert settings["stage.train"] == "last_block" and settings["stage.losses.kl.weight"] == pytest.approx(0.9)
    assert settings["data.source"] == "folder" and not any(key.startswith("methods") for key in settings)
    assert second.Scalars("result/test_top1")[0].value == pytest.approx(result["test_top1"])
    content = second.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = HParamsPluginData.FromString(content).experiment.metric_infos
    assert {"result/test_top1", "result/test_loss"} <= {metric.name.tag for metric in metrics}
    assert len(second.Scalars("loss")) == 2 == len(second.Scalars("kl"))
    tags = first.Tags()["scalars"]
    assert {"result/cosine_last", "crd_last", "cka_penultimate"} <= set(tags) and "result/test_top1" not in tags
    assert read_hparams(first)["job"] == "two_stage/stage1" and read_hparams(teacher)["seed"] == -1


def test_settings_are_those_of_the_training(tiny_config) -> None:
    config = load_config(tiny_config, ["shortcut.cue=patch"])
    teacher, kd = list_settings(config, TEACHER), list_settings(config, JobName("kd", 3))
    assert teacher["teacher.epochs"] == teacher["stage.epochs"] == 2 and kd["stage.epochs"] == 4
    assert kd["seed"] == 3 and kd["shortcut.cue"] == "patch" and kd["stage.losses.kl.weight"] == 0.9
    assert not any(key.startswith("shortcut") for key in list_settings(load_config(tiny_config), TEACHER))
    assert all(isinstance(value, bool | str | int | float) for value in kd.values())
