from __future__ import annotations

import pytest
import torch

from diagnostics.evaluation.evaluated_models import find_model, find_network, list_run_models
from diagnostics.evaluation.saved_evaluation import find_finished
from errors import UserError
from models.checkpoint import save
from settings.reading import load_config
from tests.diagnostics.test_budget import finish
from training.job_name import TEACHER, JobName, list_method_jobs
from training.run.job_folder import PROJECTIONS
from training.run.run_folder import write_config

METHODS = {
    "own": "{base: two_stage, stage1: {losses: {regression: 1, crd: false}}}",
    "three": "[{train: features, losses: {crd: 1}, epochs: 1}, {train: all, losses: {ce: 1}, epochs: 1}, "
    "{train: head, losses: {ce: 1}, epochs: 2}]",
    "llr": "{train: head, starts_from: teacher, losses: {ce: 1}}",
    "on_own": "{train: head, starts_from: own, losses: {kl: 1}}",
    "align": "{train: features, losses: {crd: 1}}",
}


@pytest.fixture
def experiment(make_experiment):
    """A run of two seeds whose jobs are all marked as finished, the last of seed 1 aside."""
    others = [f"methods.{name}=false" for name in ("scratch", "crd", "crd_kd", "two_stage")]
    made = make_experiment(*others, *(f"methods.{name}={method}" for name, method in METHODS.items()))
    jobs = {
        job
        for method in made.config.methods
        for seed in (0, 1)
        for job in list_method_jobs(made.config, method, seed)
    }
    finish(made, {TEACHER: 2, **dict.fromkeys(jobs - {JobName("three", 1, 3)}, 2)})
    return made


def test_single_stages_come_first_main_method_last(experiment) -> None:
    names = [subject.name for subject in list_run_models(experiment)]
    first = ["teacher", "kd", "llr", "on_own", "align", "own", "stage1", "three"]
    assert names == [*first, "kd/1", "llr/1", "on_own/1", "align/1", "own/1"]  # three/1 is not finished
    write_config(experiment.folder.path / "config.yaml", experiment.config)
    assert set(find_finished(experiment.folder)) == set(names) - {"stage1", "align", "align/1"}


def test_each_model_knows_its_first_stage(experiment) -> None:
    folder = experiment.folder
    for method in ("own", "three"):
        save(folder.get_job(JobName(method, 0, 1)).path / PROJECTIONS, {f"{method}.weight": torch.zeros(1)})
        folder.get_job(JobName(method, 0, 1)).path.joinpath("metrics.jsonl").write_text(
            '{"epoch": 1, "cosine_last": 0.5}\n'
        )
    found = {subject.name: subject for subject in list_run_models(experiment)}
    kept = {name: list(subject.projections) for name, subject in found.items() if subject.projections}
    own, three = ["own.weight"], ["three.weight"]
    assert kept == {"own": own, "on_own": own, "stage1": three, "three": three}
    assert found["on_own"].stage1 == [{"epoch": 1, "cosine_last": 0.5}] and found["kd"].stage1 == ()
    assert {name: list(subject.earlier) for name, subject in found.items() if subject.earlier} == {
        "own": ["own stage 1"],
        "on_own": ["own stage 1"],  # whose second stage is a model of its own
        "three": ["three stage 2"],  # the first is stage1
    }
    trained = {name: [one.job for one in subject.trainings or []] for name, subject in found.items()}
    assert trained["on_own"] == ["own/stage1", "own/stage2", "on_own"] and trained["llr"] == ["llr"]
    assert trained["kd/1"] == [] and trained["stage1"] == ["three/stage1"]
    assert [name for name, subject in found.items() if not subject.classifies] == ["align", "stage1", "align/1"]


def test_networks_and_taps_are_those_of_the_training(experiment) -> None:
    found = {subject.name: subject for subject in list_run_models(experiment)}
    assert find_network(experiment, found["llr"]) == experiment.config.teacher
    assert (
        find_network(experiment, found["three"])
        == find_network(experiment, found["stage1"])
        == experiment.config.student
    )
    assert all(subject.taps == ["layer2.0", "fc:input"] for subject in found.values())


def test_main_model_is_found_without_its_name(experiment, make_experiment) -> None:
    assert find_model(experiment, None, None).name == "three" and find_model(experiment, None, 0).seed == 0
    with pytest.raises(UserError, match="align does not classify"):
        find_model(experiment, "align", None)
    with pytest.raises(UserError, match="no finished three of seed 1: it has"):
        find_model(experiment, None, 1)
    alone = make_experiment("name=alone", "methods=[scratch,kd]")
    finish(alone, {JobName("kd", 0): 2})
    assert find_model(alone, None, None).name == "kd"


def test_no_method_takes_the_name_of_another_model(tiny_config) -> None:
    for name in ("teacher", "stage1"):
        with pytest.raises(UserError, match=f"methods.{name}: the name is taken"):
            load_config(tiny_config, [f"methods.{name}={{losses: {{ce: 1}}}}"])
