"""What training/checks.py refuses before anything is written; sizes are in tests/training/test_memory.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from errors import UserError
from models.sizes import Weightless
from tests.training.untrained import finish_needed
from training.checks import check
from training.job_name import TEACHER, JobName
from training.phases import jobs_of

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
        check(phase, experiment, jobs_of(phase, experiment.config, experiment.folder, methods))
        return experiment

    return run


@pytest.mark.parametrize(
    ("settings", "phase", "message"),
    [
        # what a phase trains
        (["methods=[]"], "all", r"methods: none is named; name some, for example --set methods=\[kd,two_stage\]"),
        (["methods=[kd]"], "crd", "--phase crd: no method of this run has more than one stage"),
        (["methods=[kd]"], "kd", "--phase kd: no method of this run has more than one stage"),
        (["methods=[two_stage]"], "baselines", "--phase baselines: no method of this run has one stage"),
        # the teacher
        (["teacher.init=absent.pt"], "all", r"absent\.pt: no such file"),
        (["teacher.init=a.pt", "teacher.checkpoint=b.pt"], "all", "give one of them"),
        (["teacher.checkpoint=a.pt"], "teacher", "teacher.checkpoint names a trained teacher: .*--phase crd"),
        (["teacher.checkpoint=a.pt"], "all", r"a\.pt: no such file"),
        ([], "crd", "there is no teacher: train one with --phase teacher"),
        # networks
        (["student.arch=resnet9"], "all", "student: unknown arch 'resnet9'"),
        (["teacher.taps.mine=layer9"], "all", "teacher: tap 'layer9' is no module of .*, did you mean 'layer"),
        (["student.taps.last=fc"], "all", r"student: taps\.last: fc is the classifier, name what it reads"),
        # losses
        (["teacher.losses.kl=1"], "all", "teacher.losses.kl: the teacher has no teacher, use losses of"),
        (
            ["methods.two_stage.stage1.losses.kl=1"],
            "all",
            "methods.two_stage.stage1.losses.kl: train: features leaves the classifier alone",
        ),
        (
            ["methods.two_stage.stage1.losses.reuse=1"],
            "all",
            "methods.two_stage.stage1.losses.reuse: train: features leaves the classifier alone",
        ),
        (
            ["methods.two_stage.stage1.losses={crd: 0, OWN:Silent: 1}"],
            "all",
            "methods.two_stage.stage1: train: features needs a loss that reads taps, such as crd or regression",
        ),
        (
            ["methods.crd.upweight_errors_of=kd"],
            "all",
            "methods.crd.stage1.losses.crd: upweight_errors_of weights no losses from a bank: use negatives",
        ),
        (
            ["methods.crd.losses.crd.taps={stage4: 1}"],
            "all",
            "methods.crd.stage1.losses.crd: student: CifarResNet has no tap stage4, did you mean 'stage",
        ),
        (
            ["methods.crd.losses.crd.taps={mine: 1}", "student.taps.mine=layer1"],
            "all",
            "methods.crd.stage1.losses.crd: teacher: CifarResNet has no tap mine: there are ",
        ),
        (
            ["methods=[crd]", "student.arch=OWN:Convolved"],
            "all",
            "losses.crd: student: Convolved has no blocks or stages: name a module with taps: {penultimate: NAME}",
        ),
        (
            ["methods=[kd]", "methods.kd.losses.OWN:Maps=1", "student.taps.stage2=fc:input"],
            "all",
            r"losses.OWN:Maps: student: a loss needs maps, and a tap gave \(1, 64\)",
        ),
        (["methods.kd.losses.OWN:KL=1"], "all", "methods.kd.stage1.losses: two losses would be called ce, kl, kl"),
        (
            ["methods.two_stage.stage2={train: head, losses: {OWN:Maps: 1}}"],
            "all",
            "methods.two_stage.stage2.losses.OWN:Maps: it trains features through maps, and train: head freezes",
        ),
        (
            ["methods=[kd]", "methods.kd.losses.reuse=1", "student.arch=OWN:Convolved"],
            "all",
            "methods.kd.stage1.losses.reuse: it needs linear classifiers of vectors, which Convolved has not",
        ),
        (
            ["methods=[kd]", "methods.kd.losses.reuse=1", "teacher.arch=OWN:Convolved"],
            "all",
            "methods.kd.stage1.losses.reuse: it needs linear classifiers of vectors, which Convolved has not",
        ),
        (
            ["methods.crd.losses.ce=0"],
            "all",
            "methods.crd.stage1: train: all trains the classifier, and no loss reads its logits: add one",
        ),
        (
            ["methods.two_stage.stage2={train: head, losses: {kl: false, ce: false, OWN:Silent: 1}}"],
            "all",
            r"two_stage.stage2: train: head trains .*, or use train: features \(a loss of your own says",
        ),
        # images
        (
            ["methods.kd.images=balanced", "data.val_fraction=0.25"],
            "all",
            "methods.kd.stage1.images: balanced needs a planted cue",
        ),
        (
            ["methods.two_stage.stage2.batch_size=65"],
            "all",
            "methods.two_stage.stage2.batch_size=65: there are 64 training images, use at most 64",
        ),
        (
            ["methods.kd.batch_size=1", "data.image_size=4", "data.crop=0"],
            "all",
            "methods.kd.stage1.batch_size=1: batch statistics need more than one value a channel, use 2 or more",
        ),
        (
            ["methods.kd.optimizer.accumulate=9"],
            "all",
            "methods.kd.stage1.optimizer.accumulate=9: an epoch has 4 batches",
        ),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(look, own, tmp_path, settings, phase, message):
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    with pytest.raises(UserError, match=message.replace("OWN", own)):
        look(*(setting.replace("OWN", own) for setting in settings), cache, phase=phase)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("phase", ["teacher", "all"])
def test_a_phase_that_fits_passes_and_writes_nothing(look, phase):
    assert not look(phase=phase).folder.path.exists()


def test_losses_that_fit_pass(look, own):
    features = f"methods.two_stage.stage1.losses={{'{own}:Maps': 1, regression: 1}}"
    in_batch = "{objective: infonce, mode: instance, negatives: batch}"
    crd = f"methods.crd={{upweight_errors_of: kd, losses: {{crd: {in_batch}}}}}"
    head = "methods.head={base: two_stage, stage2: {train: head, losses: {crd: 1, reuse: 1}}}"
    look(features, crd, head, f"methods.named={{losses: {{kl: 1, '{own}:Silent': 1}}}}")


def test_a_student_larger_than_its_teacher_gets_a_word(look, capsys):
    look(phase="teacher")
    assert capsys.readouterr().err == ""
    look("student.arch=resnet20", phase="teacher")
    assert "warning: the student resnet20 has" in capsys.readouterr().err


VGG = ("student.arch=vgg11", "student.stem=imagenet", "data.image_size=32", "methods=[two_stage]")
SHALLOW = "student.taps={penultimate: features.10, last: features.20}"
HEAD = "methods.two_stage.stage2.train=head"


def test_taps_that_leave_parameters_untrained_by_every_stage_are_refused(look, tmp_path):
    # Before, 93 % of vgg11's parameters kept their initial values without a word.
    with Weightless():  # drawing 129 million values several times more would tell nothing
        told = r"student\.taps features\.10, features\.20: no stage of two_stage trains 93 % of vgg11's parameters"
        with pytest.raises(UserError, match=told + r": name a deeper tap, such as classifier\.6:input"):
            look(*VGG, SHALLOW, HEAD)
        assert not (tmp_path / "runs").exists()
        look(*VGG, SHALLOW, HEAD, "student.allow_untrained=true")
        look(*VGG, SHALLOW)
        look(*VGG, SHALLOW, HEAD, "methods.two_stage.stage3={losses: {ce: 1}, epochs: 1}")
        look(*VGG, "student.taps.penultimate=features.10", HEAD)
        look(*VGG, SHALLOW, HEAD, phase="teacher")  # which trains no student
        with pytest.raises(UserError, match="no stage of two_stage trains 93 %"):
            look(*VGG, HEAD, "student.taps.penultimate=features.20", "losses.crd.taps={penultimate: 1}")


def finished(experiment, *jobs):
    for job in jobs:
        experiment.folder.job(job).finish(experiment.build(experiment.network_of(job)), {})


@pytest.mark.parametrize(
    ("phase", "method", "message"),
    [
        ("kd", "two_stage", "two_stage stage 2 seed 0 needs two_stage stage 1, .*: run --phase crd first"),
        ("kd", "late", "late stage 2 seed 0 needs late stage 1, which is not finished in .*/tiny: run"),
        ("crd", "weighted", "weighted stage 1 seed 0 needs kd, .*: run --phase baselines first, or all"),
        ("baselines", "after", "after seed 0 needs two_stage stage 2, .*: run --phase kd first, or all"),
    ],
)
def test_a_phase_alone_asks_for_what_its_jobs_need(make_experiment, phase, method, message):
    regression = "{base: two_stage, stage1: {upweight_errors_of: kd, losses: {crd: false, regression: 1}}}"
    settings = (
        "methods={late: {base: two_stage, stage1: {losses: {crd: {mode: relax}}}}}",
        f"methods={{weighted: {regression}}}",
        "methods={after: {starts_from: two_stage, losses: {ce: 1}}}",
    )
    experiment = make_experiment(*settings)
    finished(experiment, TEACHER)
    jobs = jobs_of(phase, experiment.config, experiment.folder, [method])
    with pytest.raises(UserError, match=message):
        check(phase, experiment, jobs)
    for job in jobs:
        finish_needed(job.name, experiment)
    check(phase, experiment, jobs)


def test_a_source_that_has_lost_its_weights_is_named(make_experiment):
    experiment = make_experiment()
    first = JobName("two_stage", 0, 1)
    finished(experiment, TEACHER, first)
    experiment.folder.job(first).model.unlink()
    with pytest.raises(UserError, match=r"two_stage/stage1/model\.pt is gone"):
        check("kd", experiment, jobs_of("kd", experiment.config, experiment.folder))
    finished(experiment, first)
    experiment.folder.teacher.model.unlink()
    with pytest.raises(UserError, match=r"teacher/model\.pt is gone"):
        check("kd", experiment, jobs_of("kd", experiment.config, experiment.folder))


def test_a_given_teacher_must_fit_and_may_be_renewed(look, make_experiment, tmp_path):
    given = tmp_path / "teacher.pt"
    settings = f"teacher.checkpoint={given}"
    torch.save({"x": torch.ones(1)}, given)
    for phase in ("crd", "all"):
        with pytest.raises(UserError, match="does not fit resnet8"):
            look(settings, phase=phase)
    experiment = make_experiment(settings)
    torch.save(experiment.build(experiment.config.teacher).state_dict(), given)
    look(settings, phase="crd")
    check("all", experiment, jobs_of("all", experiment.config, experiment.folder), fresh=True)
