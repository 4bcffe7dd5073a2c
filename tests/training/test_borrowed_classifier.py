"""Stages that answer by the teacher's classifier: behind a projector, or behind a connector that stays."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

import main_eval
from errors import UserError, run_command
from models.checkpoint import load
from models.connector import ConnectedStudent
from settings.methods import list_shipped
from training.checks import check_phase
from training.job_name import find_last_job, list_method_jobs
from training.phases import list_phase_jobs, run_jobs
from training.run.prepare import prepare_run_dir
from training.setup import make_setup

METHODS = {
    "borrowed": "{train: features, losses: {dkd: {through: teacher}, kl: {through: teacher}}}",
    "labelled": "{train: features, losses: {ce: {through: teacher}}}",
    "simkd": "{}",
    "simkd_staged": "{}",
    "connected_kd": "{connector: true, losses: {ce: 1, kl: 1}}",
    "late": "{stage1: {train: features, losses: {pkt: 1}}, "
    "stage2: {train: features, connector: true, epochs: 1, losses: {simkd: 1}}}",
    "twice": "{stage1: {connector: true, losses: {ce: 1}}, stage2: {connector: true, epochs: 1, losses: {ce: 1}}}",
    "fresh": "{connector: true, reset_head: true, losses: {ce: 1}}",
    "twin": "{twin_of: simkd_staged}",
    "twin_of_borrowed": "{twin_of: borrowed}",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("borrowed")


@pytest.fixture
def experiment(make_experiment, runs):
    """A run of all methods, trained once."""
    methods = "{" + ", ".join(f"{name}: {value}" for name, value in METHODS.items()) + "}"
    experiment = make_experiment(
        "methods=[kd]",
        f"methods={methods}",
        f"methods=[{', '.join(METHODS)}]",
        "teacher.arch=resnet8x4",
        "training.epochs=2",
        runs=runs,
    )
    if not experiment.folder.teacher.is_finished:
        jobs = list_phase_jobs("all", experiment.config, experiment.folder)
        check_phase("all", experiment, jobs)
        names = [job.name for job in jobs]
        prepare_run_dir(
            experiment.folder, experiment.config, experiment.data, fresh=False, resume=False, jobs=names
        )
        run_jobs(jobs, experiment)
    return experiment


def load_weights_of(experiment, method):
    return load(experiment.folder.get_job(find_last_job(experiment.config, method, 0)).model)


def load_teachers(experiment):
    return load(experiment.folder.teacher.model)


@pytest.mark.parametrize("method", [name for name in METHODS if "twin" not in name])
def test_every_method_reports_accuracy(experiment, method) -> None:
    result = json.loads(
        (experiment.folder.get_job(find_last_job(experiment.config, method, 0)).path / "result.json").read_text()
    )
    assert 0 <= result["test_top1"] <= 1


def test_terms_are_those_behind_the_teachers_classifier(experiment) -> None:
    setup = make_setup(experiment, find_last_job(experiment.config, "borrowed", 0))
    objective = setup.objective
    batch = next(iter(experiment_batches(setup)))
    own = objective._compute_view(batch)
    teacher = objective.teacher(batch)
    logits = teacher.classifier(objective.projector(own.taps["features"]))
    expected = 16 * F.kl_div(
        F.log_softmax(logits / 4, dim=1), F.softmax(teacher.logits / 4, dim=1), reduction="batchmean"
    )
    terms = objective(batch)
    torch.testing.assert_close(terms["kl"].value, expected)
    sum(term.value for name, term in terms.items() if name != "top1").backward()
    assert objective.projector.weight.grad is not None and objective.head.weight.grad is None
    assert teacher.classifier.weight.grad is None


def experiment_batches(setup):
    from dataset.loader import iter_training_batches

    return iter_training_batches(setup.data, setup.plan.batch_size, 0, 0, 0)


def test_projector_is_folded_into_the_students_classifier(experiment) -> None:
    weights, plain = load_weights_of(experiment, "borrowed"), experiment.build_student(0).state_dict()
    assert weights.keys() == plain.keys()
    assert not torch.equal(weights["fc.weight"], plain["fc.weight"])
    teachers = load_teachers(experiment)["fc.weight"]  # (4, 256): a product with it has its rank at most
    stacked = torch.cat([teachers, weights["fc.weight"] @ torch.linalg.pinv(weights["fc.weight"]) @ teachers])
    assert torch.linalg.matrix_rank(stacked) == torch.linalg.matrix_rank(teachers)


def test_simkd_keeps_the_teachers_classifier(experiment) -> None:
    simkd, teachers = load_weights_of(experiment, "simkd"), load_teachers(experiment)
    assert torch.equal(simkd["classifier.weight"], teachers["fc.weight"])
    assert torch.equal(simkd["classifier.bias"], teachers["fc.bias"])
    later = load_weights_of(experiment, "simkd_staged")
    assert later.keys() == simkd.keys() and not torch.equal(later["classifier.weight"], teachers["fc.weight"])
    assert load_weights_of(experiment, "twin").keys() == simkd.keys()


def test_later_stage_keeps_its_trained_classifier(experiment) -> None:
    first, second = list_method_jobs(experiment.config, "twice", 0)
    trained, teachers = load(experiment.folder.get_job(first).model), load_teachers(experiment)
    start = make_setup(experiment, second).objective.model.classifier.weight
    assert torch.equal(start, trained["classifier.weight"]) and not torch.equal(start, teachers["fc.weight"])


def test_new_classifier_may_stand_behind_a_connector(experiment) -> None:
    start = make_setup(experiment, find_last_job(experiment.config, "fresh", 0)).objective.model.classifier.weight
    assert not torch.equal(start, load_teachers(experiment)["fc.weight"])


def test_connector_may_follow_a_stage_without(experiment) -> None:
    assert load_weights_of(experiment, "late").keys() == load_weights_of(experiment, "simkd").keys()


def test_twin_trains_a_classifier_of_its_own(experiment) -> None:
    (stage,) = experiment.config.stages["twin_of_borrowed"]
    assert stage.train == "all" and not stage.goes_through


def test_evaluation_and_export_include_the_connector(experiment, runs, monkeypatch, capsys) -> None:
    out = runs / "exported"
    for words in (
        [str(experiment.folder.path)],
        [str(experiment.folder.path), "--export", str(out), "--model", "simkd"],
    ):
        monkeypatch.setattr("sys.argv", ["main_eval.py", *words])
        assert run_command(main_eval.run) == 0
    report = json.loads((experiment.folder.path / "eval" / "report.json").read_text())
    assert set(METHODS) <= {model["method"] for model in report["models"]}
    assert load(out / "model.pt").keys() == load_weights_of(experiment, "simkd").keys()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "{losses: {ce: 1, kl: {weight: 1, through: teacher}}}",
            "through: teacher is for stages with train: features",
        ),
        ("{train: features, losses: {pkt: {through: teacher}}}", "is for losses that read logits"),
        ("{train: features, losses: {dkd: 1}}", "set through: teacher"),
        ("{train: features, losses: {simkd: 1}}", "set connector: true"),
        ("{train: head, connector: true, losses: {ce: 1}}", "leaves the new connector untrained"),
        ("{starts_from: teacher, train: all, connector: true, losses: {ce: 1}}", "connector is for students"),
    ],
)
def test_wrong_uses_are_refused(make_experiment, method, message) -> None:
    with pytest.raises(UserError, match=message):
        experiment = make_experiment("methods=[kd]", f"methods={{wrong: {method}}}", "methods=[wrong]")
        check_phase("all", experiment, list_phase_jobs("all", experiment.config, experiment.folder))


@pytest.mark.parametrize(
    "method", [name for name in list_shipped() if name.endswith("_staged") or name == "simkd"]
)
def test_shipped_staged_methods_pass_the_checks(make_experiment, method) -> None:
    experiment = make_experiment(f"methods=[{method}]", "teacher.arch=resnet14")
    check_phase("all", experiment, list_phase_jobs("all", experiment.config, experiment.folder))
    network = experiment.find_network(find_last_job(experiment.config, method, 0))
    assert isinstance(experiment.build(network), ConnectedStudent) == method.startswith("simkd")
