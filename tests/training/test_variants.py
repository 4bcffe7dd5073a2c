"""Of training/teacher_head.py, training/projector.py, training/run_folder.py, training/claim.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from configs.reading import to_yaml
from dataset.loader import imageless_batches
from diagnostics.subjects import subjects_of_run
from errors import UserError
from models.checkpoint import load
from models.heads import classifier
from models.taps import head_inputs
from training.claim import claim
from training.job_name import baseline, read_label, stage1, stage2
from training.phases import check, describe, jobs_of, run_jobs
from training.projector import fold
from training.teacher_head import teacher_side

HEAD = "train: head"
VARIANTS = {
    "reheaded": f"{{kd: {{{HEAD}, teacher_head: oracle}}}}",  # named before what it needs
    "relaxed": "{crd: {mode: relax}}",
    "oracle": f"{{kd: {{{HEAD}, features: teacher, images: balanced, alpha: 0}}}}",
    "blank": f"{{kd: {{{HEAD}, features: random}}}}",
    "on_kd": f"{{kd: {{{HEAD}, features: kd, images: balanced}}}}",
    "reused": f"{{kd: {{{HEAD}, head: teacher, epochs: 20, optimizer: {{lr: 0.05}}}}}}",
}
SETTINGS = (
    "shortcut.cue=tint",
    "shortcut.conflicting=0.2",
    "shortcut.students=unbiased",
    "data.val_fraction=0.25",
    "teacher.arch=resnet14",
    "baselines.methods=[kd]",
    "variants={" + ", ".join(f"{name}: {value}" for name, value in VARIANTS.items()) + "}",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("variants")


@pytest.fixture(params=[0, 2])
def finished(request, make_experiment, runs):
    """A run of all variants, with a live teacher and with a cached one."""
    views = f"teacher.views={request.param}"
    experiment = make_experiment(
        f"name=views{request.param}", f"data.cache_dir={runs / 'cache'}", views, *SETTINGS, runs=runs
    )
    check("all", experiment)
    jobs = jobs_of("all", experiment.config, experiment.folder)
    run_jobs(jobs, experiment)
    return experiment, jobs


def weights(experiment, label):
    return load(experiment.folder.job(read_label(label, 0)).model)


def same_features(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items() if not name.startswith("fc."))


def test_every_variant_starts_from_the_features_it_names(finished):
    experiment, jobs = finished
    names = [job.folder.name for job in jobs]
    assert names[:3] == ["teacher", "stage1", "stage1_relaxed"]
    assert set(names[3:]) == {"stage2", "kd", *(f"stage2_{name}" for name in VARIANTS)}
    assert names.index("stage2_oracle") < names.index("stage2_reheaded")
    assert names.index("kd") < names.index("stage2_on_kd")
    assert all(job.folder.finished for job in jobs)

    teacher = load(experiment.folder.teacher.model)
    assert same_features(weights(experiment, "stage2_oracle"), teacher)
    assert same_features(weights(experiment, "stage2_blank"), experiment.new_student(0).state_dict())
    assert same_features(weights(experiment, "stage2_on_kd"), weights(experiment, "kd"))
    assert same_features(weights(experiment, "stage2_reused"), weights(experiment, "stage1"))
    assert same_features(weights(experiment, "stage2_reheaded"), weights(experiment, "stage1"))
    assert not same_features(weights(experiment, "stage1_relaxed"), weights(experiment, "stage1"))
    last = "layer3.0."  # stage 2 of these trains the last block too
    for name, value in weights(experiment, "stage2_relaxed").items():
        if not name.startswith(("fc.", last)):
            assert torch.equal(value, weights(experiment, "stage1_relaxed")[name])
    for name, start in (("oracle", teacher), ("on_kd", weights(experiment, "kd"))):
        assert not torch.equal(weights(experiment, f"stage2_{name}")["fc.weight"], start["fc.weight"])


def test_a_reused_classifier_is_that_of_the_teacher_behind_a_projector(finished):
    experiment, _ = finished
    history = experiment.folder.job(stage2(0, "reused")).history()
    assert set(history[0]) == {"epoch", "learning_rate", "loss", "mse", "top1", "test_top1", "test_loss"}
    assert history[-1]["mse"] < 0.5 * history[0]["mse"]
    result = experiment.folder.job(stage2(0, "reused")).result()
    assert result["test_top1"] == history[-1]["test_top1"]
    teacher = load(experiment.folder.teacher.model)
    # what the student's classifier says lies in what the teacher's can say
    rank = torch.linalg.matrix_rank(teacher["fc.weight"].double(), rtol=1e-6)
    joined = torch.cat([teacher["fc.weight"], weights(experiment, "stage2_reused")["fc.weight"]], dim=1).double()
    assert torch.linalg.matrix_rank(joined, rtol=1e-6) == rank


def test_the_teacher_of_a_variant_speaks_with_the_named_classifier(finished):
    experiment, _ = finished
    own = experiment.of_variant("reheaded")
    side = teacher_side(own, 0)
    network = experiment.trained(experiment.config.teacher, experiment.folder.job(stage2(0, "oracle")))
    batch = next(imageless_batches(experiment.data, 16, 0, 0, 1))
    with torch.no_grad():
        expected = classifier(network)[1](side.features(batch))
        torch.testing.assert_close(side.outputs(batch).logits, expected)
        assert torch.equal(side.head.weight, network.fc.weight)


def test_a_tap_that_the_classifier_does_not_read_is_not_taken_for_its_features(finished):
    experiment, _ = finished
    config = experiment.config
    taps = config.teacher.model_copy(update={"taps": ["layer1.1", "layer2.1"]})
    own = experiment.of_variant("reheaded")
    shallow = replace(own, config=own.config.model_copy(update={"teacher": taps}))
    batch = next(imageless_batches(experiment.data, 16, 0, 0, 1))
    with torch.no_grad():
        ours, reference = teacher_side(shallow, 0), teacher_side(own, 0)
        torch.testing.assert_close(ours.features(batch), reference.features(batch), rtol=2e-3, atol=1e-3)
        given, expected = ours.outputs(batch).logits, reference.outputs(batch).logits
        torch.testing.assert_close(given, expected, rtol=2e-3, atol=2e-3)


def test_variants_are_evaluated_under_their_names(finished):
    experiment, _ = finished
    subjects = {subject.method: subject for subject in subjects_of_run(experiment)}
    assert list(subjects) == ["teacher", "kd", "stage1", *VARIANTS, "two_stage"]
    assert subjects["oracle"].arch == "resnet14" and subjects["blank"].arch == "resnet8"
    assert {name for name, subject in subjects.items() if subject.projections} == {
        *("stage1", "two_stage", "relaxed", "reheaded", "reused")
    }
    projections = {name: subjects[name].projections for name in ("relaxed", "two_stage")}
    assert any(
        not torch.equal(projections["relaxed"][key], value) for key, value in projections["two_stage"].items()
    )
    for subject in subjects.values():
        images = next(experiment.data.test.batches(4)).images
        assert head_inputs(subject.build(), images, experiment.machine).shape[0] == 4


def test_a_fold_is_head_after_projector():
    projector, head, both = torch.nn.Linear(3, 5), torch.nn.Linear(5, 4), torch.nn.Linear(3, 4)
    fold(projector, head, both)
    features = torch.randn(7, 3)
    torch.testing.assert_close(both(features), head(projector(features)))


def test_fresh_removes_what_was_trained_from_it(finished):
    experiment, _ = finished
    folder, config = experiment.folder, experiment.config
    (folder.path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    claim(folder, config, experiment.data, fresh=True, resume=False, jobs=[stage2(0, "oracle")])
    left = {path.name for path in (folder.path / "seed0").iterdir()}
    assert not {"stage2_oracle", "stage2_reheaded"} & left and "stage2_reused" in left
    claim(folder, config, experiment.data, fresh=True, resume=False, jobs=[baseline(0, "kd")])
    claim(folder, config, experiment.data, fresh=True, resume=False, jobs=[stage1(0)])
    left = {path.name for path in (folder.path / "seed0").iterdir()}
    assert left == {"stage1_relaxed", "stage2_relaxed", "stage2_blank"}


def test_a_dry_run_lists_variants_with_their_steps(make_experiment):
    experiment = make_experiment(*SETTINGS)
    shown = describe(jobs_of("all", experiment.config, experiment.folder), experiment)
    assert "stage1_relaxed seed 0: 2 epochs x 3 steps" in shown
    assert "stage2_oracle seed 0: 2 epochs x 1 steps" in shown and "stage2_reused seed 0: 20 epochs" in shown


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("kd.train=head", "kd.images=balanced"), "kd.images: balanced needs a planted cue"),
        (("kd.train=head", "kd.features=kd", "baselines.methods=[scratch]"), "needs kd, which is not"),
        (
            (f"variants={{a: {{kd: {{{HEAD}, features: teacher, teacher_head: a}}}}}}",),
            "stage2_a wait for each other: look at kd.teacher_head",
        ),
        (("teacher.init=absent.pt",), "absent.pt: no such file"),
        (("teacher.init=a.pt", "teacher.checkpoint=b.pt"), "give one of them"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(make_experiment, overrides, message):
    experiment = make_experiment(*overrides)
    with pytest.raises(UserError, match=message):
        check("all", experiment)
    assert not experiment.folder.path.exists()


def test_stage_2_of_a_variant_alone_asks_for_its_stage_1(make_experiment, runs):
    given = runs / "teacher.pt"
    experiment = make_experiment("variants={a: {crd: {mode: relax}}}", f"teacher.checkpoint={given}")
    torch.save(experiment.build(experiment.config.teacher).state_dict(), given)
    experiment.folder.job(stage1(0)).finish(experiment.new_student(0), {})
    with pytest.raises(UserError, match="there is no finished stage 1 of a for seed 0"):
        check("kd", experiment)


def test_a_student_larger_than_its_teacher_gets_a_word(make_experiment, capsys):
    check("teacher", make_experiment())
    assert capsys.readouterr().err == ""
    check("teacher", make_experiment("student.arch=resnet20"))
    assert "warning: the student resnet20 has" in capsys.readouterr().err
