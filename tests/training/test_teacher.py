from __future__ import annotations

import pytest
import torch

from errors import UserError, warn
from models.checkpoint import load, save
from training import teacher
from training.job_name import TEACHER
from training.setup import train_stage

TINY = ("teacher.epochs=1", "teacher.optimizer.lr=1.0e-9", "teacher.optimizer.weight_decay=0")


def test_training_starts_from_the_weights_of_init(make_experiment, tmp_path) -> None:
    start = make_experiment().build_student(7).state_dict()
    save(tmp_path / "start.pt", start)
    experiment = make_experiment(f"teacher.init={tmp_path / 'start.pt'}", *TINY)
    train_stage(experiment, TEACHER)
    end = load(experiment.folder.teacher.model)
    torch.testing.assert_close(end["conv1.weight"], start["conv1.weight"])
    assert not torch.equal(end["bn1.running_mean"], start["bn1.running_mean"])  # it did train
    assert experiment.folder.teacher.read_result()["source"] == "trained"
    plain = make_experiment("name=plain", *TINY)
    train_stage(plain, TEACHER)
    assert not torch.allclose(load(plain.folder.teacher.model)["conv1.weight"], start["conv1.weight"])


def test_weights_of_init_must_fit(make_experiment, tmp_path) -> None:
    save(tmp_path / "start.pt", {"x": torch.ones(1)})
    with pytest.raises(UserError, match="does not fit resnet8"):
        train_stage(make_experiment(f"teacher.init={tmp_path / 'start.pt'}"), TEACHER)


def test_the_teacher_trains_under_its_own_cues(make_experiment) -> None:
    def train_teacher(*overrides):
        experiment = make_experiment("shortcut.cue=tint", *overrides, *TINY, "teacher.optimizer.lr=0.01")
        train_stage(experiment, TEACHER)
        return load(experiment.folder.teacher.model)["conv1.weight"]

    first = train_teacher("name=a", "shortcut.students=biased")
    assert torch.equal(first, train_teacher("name=b", "shortcut.students=unbiased"))
    assert not torch.equal(first, train_teacher("name=c", "shortcut.teacher=unbiased"))


def test_the_teacher_trains_by_its_own_losses(make_experiment) -> None:
    histories = []
    for name, settings in (("a", ["teacher.losses.ce.label_smoothing=0.3"]), ("b", [])):
        experiment = make_experiment(f"name={name}", "teacher.epochs=1", *settings)
        train_stage(experiment, TEACHER)
        histories.append(experiment.folder.teacher.read_history()[0])
    assert set(histories[0]) == {"epoch", "learning_rate", "loss", "ce", "top1", "test_top1", "test_loss"}
    assert histories[0]["ce"] != histories[1]["ce"]


@pytest.mark.parametrize("shift", [0, 1])
def test_a_given_teacher_with_another_class_order_is_told(
    make_experiment, tmp_path, monkeypatch, capsys, shift
) -> None:
    warn.cache_clear()
    save(tmp_path / "given.pt", make_experiment().build_student(7).state_dict())
    experiment = make_experiment(f"teacher.checkpoint={tmp_path / 'given.pt'}")
    labels = experiment.data.test.labels
    monkeypatch.setattr(teacher, "predict", lambda *_: torch.eye(4)[(labels + shift) % 4])
    teacher.ensure_teacher(experiment)
    said = "0.0 % of the test images since its classes are in another order: its outputs seem to be date, ash"
    assert (said in capsys.readouterr().err) == (shift == 1)
