from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from errors import UserError, warn
from models.zoo import Weightless
from settings.stages import Stage
from tests.training.untrained import finish_needed
from training.checks import check_lengths, check_phase
from training.job_name import TEACHER, JobName
from training.phases import list_phase_jobs

CODE = """
from torch import nn
from losses.loss import Loss

class Maps(Loss):
    needs_maps = True
    taps = {"stage2": 1.0}
    def forward(self, student, teacher, samples):
        return student.maps["stage2"].mean()

class KL(Maps): pass

class Silent(Loss):
    def forward(self, student, teacher, samples):
        return student.logits.mean()

class Convolved(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features, self.scores = nn.Conv2d(3, 4, 3), nn.Conv2d(4, num_classes, 1)

    def forward(self, images):
        return self.scores(self.features(images).relu()).mean(dim=(2, 3))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> str:
    """A module of losses and networks in the path."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"checked_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE, encoding="utf-8")
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def look(make_experiment):
    """`look("methods.kd=false", phase="crd")`: check a phase of the tiny run with these settings."""

    def run(*overrides, phase="all", methods=()):
        experiment = make_experiment(*overrides)
        check_phase(phase, experiment, list_phase_jobs(phase, experiment.config, experiment.folder, methods))
        return experiment

    return run


ON_KD, IN_CRD = "methods=[kd]; methods.kd.losses", "methods.crd.losses.crd"
STAGE1, STAGE2 = "methods.two_stage.stage1", "methods.two_stage.stage2"
SMALL = "data.image_size=4; data.crop=0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("methods=[]", r"methods: none is named; name some, for example --set methods=\[kd,two_stage\]"),
        # the teacher
        ("teacher.init=absent.pt", r"absent\.pt: no such file"),
        ("teacher.init=a.pt; teacher.checkpoint=b.pt", "give one of them"),
        ("teacher.checkpoint=a.pt", r"a\.pt: no such file"),
        # networks
        ("student.arch=resnet9", "student: unknown arch 'resnet9'"),
        ("teacher.taps.mine=layer9", "teacher: tap 'layer9' is no module of .*, did you mean 'layer"),
        ("student.taps.last=fc", r"student: taps\.last: fc is the classifier, name what it reads"),
        # losses
        ("teacher.losses.kl=1", "teacher.losses.kl: the teacher has no teacher, use losses of"),
        (f"{STAGE1}.losses.kl=1", f"{STAGE1}.losses.kl: train: features leaves the classifier alone"),
        (f"{STAGE1}.losses.reuse=1", f"{STAGE1}.losses.reuse: train: features leaves the classifier alone"),
        (f"{STAGE1}.losses={{crd: 0, OWN:Silent: 1}}", f"{STAGE1}: train: features needs a loss that reads taps"),
        ("methods.crd.upweight_errors_of=kd", "crd.stage1.losses.crd: upweight_errors_of weights no losses from"),
        (
            "methods.kd.upweight_errors_of=scratch; data.mix=mixup; methods.scratch={}",
            "upweight_errors_of weights single images, and data.mix=mixup mixes two",
        ),
        (
            f"{IN_CRD}.taps={{stage4: 1}}",
            "losses.crd: student: CifarResNet has no tap stage4, did you mean 'stage",
        ),
        (
            f"{IN_CRD}.taps={{mine: 1}}; student.taps.mine=layer1",
            "losses.crd: teacher: CifarResNet has no tap mine",
        ),
        ("methods=[crd]; student.arch=OWN:Convolved", "student: Convolved has no blocks or stages: name a module"),
        (
            f"{ON_KD}.OWN:Maps=1; student.taps.stage2=fc:input",
            r"student: a loss needs maps, and a tap gave \(1, 64\)",
        ),
        ("methods.kd.losses.OWN:KL=1", "methods.kd.stage1.losses: two losses would be called ce, kl, kl"),
        (
            f"{STAGE2}={{train: head, losses: {{OWN:Maps: 1}}}}",
            "Maps: it trains features through maps, and train: head",
        ),
        (
            f"{ON_KD}.reuse=1; student.arch=OWN:Convolved",
            "reuse: it needs linear classifiers .* Convolved has not",
        ),
        (
            f"{ON_KD}.reuse=1; teacher.arch=OWN:Convolved",
            "reuse: it needs linear classifiers .* Convolved has not",
        ),
        ("methods.crd.losses.ce=0", "methods.crd.stage1: train: all trains the classifier, and no loss reads its"),
        # images and batches
        ("methods.kd.images=balanced; data.val_fraction=0.25", "kd.stage1.images: balanced needs a planted cue"),
        (f"{STAGE2}.batch_size=65", f"{STAGE2}.batch_size=65: there are 64 training images, use at most 64"),
        ("teacher.batch_size=65", "teacher.batch_size=65: there are 64 training images, use at most 64"),
        (
            f"methods.kd.batch_size=1; {SMALL}",
            "kd.stage1.batch_size=1: batch statistics need more .*, use 2 or more",
        ),
        (f"teacher.batch_size=1; {SMALL}", "teacher.batch_size=1: batch statistics need more .*, use 2 or more"),
        ("methods.kd.optimizer.accumulate=9", "kd.stage1.optimizer.accumulate=9: an epoch has 4 batches"),
    ],
)
def test_misfits_are_refused_before_anything_is_written(look, own, tmp_path, settings, message) -> None:
    with pytest.raises(UserError, match=message.replace("OWN", own)):
        look(*settings.replace("OWN", own).split("; "), f"data.cache_dir={tmp_path / 'cache'}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("phase", "setting", "message"),
    [
        ("crd", "methods=[kd]", "--phase crd: no method of this run has more than one stage"),
        ("kd", "methods=[kd]", "--phase kd: no method of this run has more than one stage"),
        ("baselines", "methods=[two_stage]", "--phase baselines: no method of this run has one stage"),
        ("teacher", "teacher.checkpoint=a.pt", "teacher.checkpoint names a trained teacher: .*--phase crd"),
        ("crd", "name=tiny", "there is no teacher: train one with --phase teacher"),
    ],
)
def test_a_phase_without_work_is_refused(look, phase, setting, message) -> None:
    with pytest.raises(UserError, match=message):
        look(setting, phase=phase)


@pytest.mark.parametrize("phase", ["teacher", "all"])
def test_a_phase_that_fits_passes_and_writes_nothing(look, phase) -> None:
    assert not look(phase=phase).folder.path.exists()


def test_losses_that_fit_pass(look, own) -> None:
    features = f"methods.two_stage.stage1.losses={{'{own}:Maps': 1, regression: 1}}"
    in_batch = "{objective: infonce, mode: instance, negatives: batch}"
    crd = f"methods.crd={{upweight_errors_of: kd, losses: {{crd: {in_batch}}}}}"
    head = "methods.head={base: two_stage, stage2: {train: head, losses: {crd: 1, reuse: 1}}}"
    look(features, crd, head, f"methods.named={{losses: {{kl: 1, '{own}:Silent': 1}}}}")


def test_a_larger_student_is_warned_of(look, capsys) -> None:
    look(phase="teacher")
    assert capsys.readouterr().err == ""
    look("student.arch=resnet20", phase="teacher")
    assert "warning: the student resnet20 has" in capsys.readouterr().err


VGG = ("student.arch=vgg11", "student.stem=imagenet", "data.image_size=32", "methods=[two_stage]")
SHALLOW = "student.taps={penultimate: features.10, last: features.20}"
HEAD = "methods.two_stage.stage2.train=head"
UNTRAINED = r"student\.taps features\.10, features\.20: no stage of two_stage trains 93 % of vgg11's parameters"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([SHALLOW, HEAD], UNTRAINED + r": name a deeper tap, such as classifier\.6:input"),
        (
            [HEAD, "student.taps.penultimate=features.20", "losses.crd.taps={penultimate: 1}"],
            "stage .* trains 93 %",
        ),
        ([SHALLOW, HEAD, "student.allow_untrained=true"], None),
        ([SHALLOW], None),
        ([SHALLOW, HEAD, "methods.two_stage.stage3={losses: {ce: 1}, epochs: 1}"], None),
        (["student.taps.penultimate=features.10", HEAD], None),
    ],
)
def test_parameters_that_no_stage_trains_are_refused(look, settings, message) -> None:
    with Weightless():  # drawing 129 million values several times more would tell nothing
        if message is None:
            look(*VGG, *settings)
            return
        with pytest.raises(UserError, match=message):
            look(*VGG, *settings)


def test_batches_of_one_pass_where_maps_are_larger(look) -> None:
    look("teacher.batch_size=1", "methods.kd.batch_size=1", "methods.crd.batch_size=64")


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({}, None),
        ({"early_stopping": {}, "optimizer": {"schedule": "exponential"}}, None),  # as long as it may be
        (
            {"optimizer": {"ema": 0.99, "accumulate": 5}},
            "kd.optimizer.ema=0.99 averages over about 100 steps, but",
        ),
        ({"early_stopping": {}}, "kd.early_stopping with schedule: cosine, which falls over all 10 epochs"),
    ],
)
def test_unsuitable_lengths_are_warned_of(capsys, settings, warning) -> None:
    warn.cache_clear()
    check_lengths("kd", Stage.model_validate({"epochs": 10, **settings}), 10)
    err = capsys.readouterr().err
    assert warning in err if warning else err == ""


@pytest.mark.parametrize(
    ("phase", "method", "message"),
    [
        ("kd", "two_stage", "two_stage stage 2 seed 0 needs two_stage stage 1, .*: run --phase crd first"),
        ("kd", "late", "late stage 2 seed 0 needs late stage 1, which is not finished in .*/tiny: run"),
        ("crd", "weighted", "weighted stage 1 seed 0 needs kd, .*: run --phase baselines first, or all"),
        ("baselines", "after", "after seed 0 needs two_stage stage 2, .*: run --phase kd first, or all"),
    ],
)
def test_a_phase_names_the_jobs_that_it_needs(make_experiment, phase, method, message) -> None:
    regression = "{base: two_stage, stage1: {upweight_errors_of: kd, losses: {crd: false, regression: 1}}}"
    settings = (
        "methods={late: {base: two_stage, stage1: {losses: {crd: {mode: relax}}}}}",
        f"methods={{weighted: {regression}}}",
        "methods={after: {starts_from: two_stage, losses: {ce: 1}}}",
    )
    experiment = make_experiment(*settings)
    finish(experiment, TEACHER)
    jobs = list_phase_jobs(phase, experiment.config, experiment.folder, [method])
    with pytest.raises(UserError, match=message):
        check_phase(phase, experiment, jobs)
    for job in jobs:
        finish_needed(job.name, experiment)
    check_phase(phase, experiment, jobs)


def finish(experiment, *jobs):
    for job in jobs:
        experiment.folder.get_job(job).finish(experiment.build(experiment.find_network(job)), {})


def test_a_source_without_its_weights_is_named(make_experiment) -> None:
    experiment = make_experiment()
    first = JobName("two_stage", 0, 1)
    finish(experiment, TEACHER, first)
    experiment.folder.get_job(first).model.unlink()
    with pytest.raises(UserError, match=r"two_stage/stage1/model\.pt is gone"):
        check_phase("kd", experiment, list_phase_jobs("kd", experiment.config, experiment.folder))
    finish(experiment, first)
    experiment.folder.teacher.model.unlink()
    with pytest.raises(UserError, match=r"teacher/model\.pt is gone"):
        check_phase("kd", experiment, list_phase_jobs("kd", experiment.config, experiment.folder))


def test_a_given_teacher_must_fit(look, make_experiment, tmp_path) -> None:
    given = tmp_path / "teacher.pt"
    settings = f"teacher.checkpoint={given}"
    torch.save({"x": torch.ones(1)}, given)
    for phase in ("crd", "all"):
        with pytest.raises(UserError, match="does not fit resnet8"):
            look(settings, phase=phase)
    experiment = make_experiment(settings)
    torch.save(experiment.build(experiment.config.teacher).state_dict(), given)
    look(settings, phase="crd")
    check_phase("all", experiment, list_phase_jobs("all", experiment.config, experiment.folder), fresh=True)
