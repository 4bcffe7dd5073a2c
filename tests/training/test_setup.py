from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from errors import warn
from models.checkpoint import load
from models.taps import TappedModel
from settings.loss_options import make_loss
from tests.training.cross_entropy import assert_same, copy_tensors
from tests.training.untrained import prepare_job
from training import setup as module
from training.job_name import TEACHER, JobName, get_stage
from training.setup import select_images, train_stage, uses_frozen_features

STAGE1, STAGE2 = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)
KD, CRD_KD = JobName("kd", 0), JobName("crd_kd", 0)


@pytest.fixture
def captured(monkeypatch) -> list[torch.nn.Module]:
    found: list[torch.nn.Module] = []
    monkeypatch.setattr(module, "capture_passes", found.append)
    return found


@pytest.mark.parametrize(("name", "taps"), [(TEACHER, 0), (STAGE1, 2), (STAGE2, 0), (CRD_KD, 2)])
def test_the_tapped_network_is_captured(make_experiment, captured, name, taps) -> None:
    experiment = make_experiment()
    prepared = prepare_job(name, experiment)
    prepared.compile_or_capture(experiment.machine)
    assert not captured
    prepared.compile_or_capture(replace(experiment.machine, capture=True))
    [network] = captured
    assert isinstance(network, TappedModel) and len(network.taps) == taps
    assert network.model is prepared.objective.model


@pytest.mark.parametrize(
    ("setting", "why"), [("teacher.optimizer.accumulate=2", "several batches"), ("data.workers=1", "data.workers")]
)
def test_capture_is_ignored_where_it_would_fail(make_experiment, captured, capsys, setting, why) -> None:
    experiment = make_experiment(setting)
    warn.cache_clear()
    prepare_job(TEACHER, experiment).compile_or_capture(replace(experiment.machine, capture=True))
    assert not captured
    assert f"cuda_graphs=true is ignored with {why}" in capsys.readouterr().err


def test_blocks_are_compiled_between_the_taps(make_experiment, captured, monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(module, "compile_blocks", lambda model, taps: compiled.append((model, tuple(taps))))
    experiment = make_experiment()
    machine = replace(experiment.machine, compile=True)
    for name in (TEACHER, STAGE1):
        prepare_job(name, experiment).compile_or_capture(machine)
    assert not captured
    assert [len(taps) for _, taps in compiled] == [0, 2]


def test_methods_start_from_the_same_weights(make_experiment) -> None:
    experiment = make_experiment("seeds=[0, 1]", "methods.head={train: head, losses: {ce: 1}}")
    jobs = [JobName(name, 0) for name in ("scratch", "kd", "crd", "crd_kd", "head")]
    starts = [copy_tensors(prepare_job(job, experiment).objective.model) for job in [*jobs, STAGE1]]
    expected = experiment.build_student(0).state_dict()
    for start in starts:
        assert_same(start, expected)
    other = prepare_job(JobName("kd", 1), experiment).objective.model
    assert not torch.equal(other.conv1.weight, expected["conv1.weight"])


def test_projections_follow_seed_and_stage(make_experiment) -> None:
    experiment = make_experiment("methods.two_stage.stage2.losses={crd: 1}", "seeds=[0, 1]")

    def get_projection(job):
        return prepare_job(job, experiment).objective.losses["crd"].projection["last"].student.weight

    first = get_projection(STAGE1)
    assert torch.equal(first, get_projection(STAGE1)) and torch.equal(first, get_projection(CRD_KD))
    assert not torch.equal(first, get_projection(STAGE2)) and not torch.equal(
        first, get_projection(JobName("crd_kd", 1))
    )


@pytest.mark.parametrize(
    ("stage", "is_frozen"),
    [
        ("{train: head, losses: {ce: 1, kl: 1}}", True),
        ("{train: head, losses: {reuse: 1}}", True),
        ("{train: head, losses: {ce: 1, crd: {taps: {last: 1, features: 1}}}}", True),
        ("{train: head, losses: {ce: 1, crd: 1}}", False),  # it reads the penultimate tap, too
        ("{train: last_block, losses: {ce: 1}}", False),
        ("{train: all, losses: {reuse: 1}}", False),
    ],
)
def test_features_are_frozen_for_heads_alone(make_experiment, stage, is_frozen) -> None:
    experiment = make_experiment(f"methods.m={stage}")
    found = get_stage(experiment.config, JobName("m", 0))
    losses = [make_loss("m", name, use.options, {}) for name, use in found.losses.items()]
    assert uses_frozen_features(found, experiment.find_layout(experiment.config.student), losses) is is_frozen
    assert prepare_job(JobName("m", 0), experiment).objective.sees_images is not is_frozen


def test_plans_follow_the_stage(make_experiment) -> None:
    settings = ("data.val_fraction=0.25", "training.selection_epochs=2", "teacher.cached_views=3")
    experiment = make_experiment(*settings, "methods.kd.early_stopping={}", "training.batch_size=8")
    plans = {job: prepare_job(job, experiment).plan for job in (TEACHER, STAGE1, STAGE2, KD)}
    assert [plan.first_epoch for plan in plans.values()] == [0, 0, 2, 0]
    assert [plan.candidates for plan in plans.values()] == [0, 2, 2, 0]  # early stopping chooses among all
    assert [plan.views for plan in plans.values()] == [0, 3, 3, 3]
    assert [plan.batch_size for plan in plans.values()] == [16, 8, 8, 8]
    assert [plan.name for plan in plans.values()] == ["teacher", "two_stage stage 1", "two_stage stage 2", "kd"]
    assert plans[STAGE2].rate_key == "methods.two_stage.stage2.optimizer.lr"
    assert plans[TEACHER].rate_key == "teacher.optimizer.lr"


def test_validation_chooses_among_the_selection_epochs(make_experiment) -> None:
    settings = ("data.val_fraction=0.25", "training.epochs=6", "methods=[scratch]")
    ends = {}
    for name, own in {"all": (), "last": ("training.selection_epochs=1",)}.items():
        experiment = make_experiment(f"name={name}", *settings, *own)
        train_stage(experiment, JobName("scratch", 0))
        folder = experiment.folder.get_job(JobName("scratch", 0))
        ends[name] = folder.read_result(), folder.read_history()
    assert ends["all"][1] == ends["last"][1]
    best = max(ends["all"][1], key=lambda epoch: epoch["val_top1"])
    assert ends["all"][0]["val_top1"] == best["val_top1"]
    assert ends["last"][0]["val_top1"] == ends["last"][1][-1]["val_top1"]
    for result, history in ends.values():  # noted whatever validation chose
        assert result["best_test_top1"] == max(epoch["test_top1"] for epoch in history)


def test_a_feature_stage_writes_alignment_and_projections(make_experiment) -> None:
    experiment = make_experiment("losses.crd.bank_init=features", "methods=[two_stage]")
    start = experiment.build_student(0).state_dict()
    train_stage(experiment, TEACHER)  # a random one's features are learnt slowly
    train_stage(experiment, STAGE1)
    folder = experiment.folder.get_job(STAGE1)
    for name, value in load(folder.model).items():
        assert torch.equal(value, start[name]) == name.startswith("fc."), name
    history = folder.read_history()
    assert len(history) == 2
    kinds = ("crd", "cosine", "cka")
    measured = {f"{kind}_{tap}" for kind in kinds for tap in ("penultimate", "last")}
    assert set(history[0]) == {"epoch", "learning_rate", "loss", *measured}
    for measures in history:
        assert measures["loss"] == pytest.approx(0.5 * measures["crd_penultimate"] + measures["crd_last"])
        assert -1 <= measures["cosine_last"] <= 1 and 0 <= measures["cka_last"] <= 1 + 1e-6
    assert history[1]["loss"] < history[0]["loss"]
    assert history[1]["learning_rate"] == pytest.approx(0.95 * history[0]["learning_rate"])
    result = folder.read_result()
    assert (result["epochs"], result["ended_by"]) == (2, "epochs")
    assert result["cosine_last"] == history[-1]["cosine_last"]
    assert not {"test_top1", "best_test_top1"} & set(result)
    projections = load(folder.path / "projections.pt")
    assert projections["last.student.weight"].shape == (8, 64)
    assert {name.rpartition(".")[0] for name in projections} == {
        f"{tap}.{side}" for tap in ("penultimate", "last") for side in ("student", "teacher")
    }


def test_jobs_have_their_own_images(make_experiment) -> None:
    planted = ("shortcut.cue=tint", "shortcut.students=unbiased", "data.val_fraction=0.25")
    experiment = make_experiment(*planted, "methods.even={images: balanced, losses: {ce: 1}}")
    plain, even = (select_images(experiment, JobName(name, 0)) for name in ("kd", "even"))
    assert plain is experiment.data and len(even.train) == 16
    assert not torch.equal(select_images(experiment, TEACHER).train.cues.image_cues, plain.train.cues.image_cues)
    classes, cues = even.train.labels, even.train.cues.image_cues
    counts = torch.zeros(4, 4).index_put((classes, cues), torch.ones(()), accumulate=True)
    assert (counts.max(dim=1).values - counts.min(dim=1).values <= 1).all()  # each class under all cues alike
