"""What a finished training was given: epochs, images, passes, parameters and settings, known when it is recorded.

Letters: N training images, V cached views an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from configs.networks import Optimizer
from configs.schema import Config
from configs.stages import KD
from dataset.loader import steps_per_epoch
from models.heads import classifier, inputs_of
from models.parts import depends_on, part_of
from models.structure import reads_features
from models.taps import default_taps
from models.zoo import count_parameters
from training.alignment import fills_banks, takes_statistics
from training.baselines import TERMS
from training.experiment import Experiment
from training.job_name import TEACHER, JobName, config_of, settings_of, starts_from
from training.stepping import steps_of
from training.usage import Usage, read_usage


@dataclass(frozen=True)
class Training:
    """One training, as it was: of the teacher, of a stage or of a baseline."""

    job: str  # "teacher", "kd", "stage1", "stage2_head", ...
    epochs: int  # as trained
    planned: int  # epochs of the config
    images: int  # N
    balanced: bool  # whether those are the balanced images
    batch_size: int  # images a step
    steps: int  # batches
    passes: int  # images forwards and backwards through the network
    forward_only: int  # images through frozen features, or to fill banks, never backwards
    frozen: bool  # whether only the head trained, on features computed beforehand
    teacher_passes: int  # images forwards through the teacher
    cached: bool  # whether those were computed once for all trainings on the same images
    parameters: int  # of the network, that trained
    optimizer: str  # name, rate and schedule
    reported: str  # which epoch's weights are evaluated
    alpha: float | None = None  # of the KL term, None without one
    temperature: float | None = None
    accumulate: int = 1  # batches a step of the optimizer
    usage: Usage = field(default_factory=Usage)  # as it was run

    @property
    def updates(self) -> int:
        """Steps of the optimizer."""
        return self.epochs * steps_of(self.steps // self.epochs, self.accumulate)

    @property
    def seen(self) -> int:
        """Images that it was shown, one counted as often as it came."""
        return self.steps * self.batch_size

    @property
    def ended_early(self) -> int:
        """Epochs that were planned and not needed."""
        return self.planned - self.epochs


@dataclass(frozen=True)
class _Plan:
    """What the config says of a training."""

    epochs: int
    batch_size: int
    optimizer: str
    parameters: int
    images: int
    balanced: bool = False
    picks: int = 0  # epochs of which validation picks the best, 0 where the last is taken


def trainings(experiment: Experiment, names: Iterable[JobName]) -> dict[JobName, list[Training] | None]:
    """What each of some finished jobs was given, after the jobs whose weights it went on from.

    None for a job of which, or of whose sources, no training is on record: a teacher that was taken over.

    Args:
        experiment: of the run, with its own settings and not a variant's.
    """
    config = experiment.config
    student, teacher = (experiment.build(part, pretrained=False) for part in (config.student, config.teacher))
    given = {}
    for name in names:
        sources = starts_from(config, name)
        found = [_training(experiment, job, student, teacher) for job in (*sources, name)]
        known = [training for training in found if training is not None]
        given[name] = known if len(known) == len(found) else None
    return given


def _training(experiment: Experiment, job: JobName, student: nn.Module, teacher: nn.Module) -> Training | None:
    folder = experiment.folder.job(job)
    epochs = folder.result().get("epochs") if folder.finished else None
    if epochs is None:
        return None
    config = config_of(experiment.config, job)
    plan = _plan(experiment, config, job, student, teacher)
    batch_size = min(plan.batch_size, plan.images)
    steps = epochs * steps_per_epoch(plan.images, batch_size)
    network = teacher if config.kd.features == "teacher" else student
    vectors = reads_features(network, config.data.image_size)
    frozen = job.kind == "stage2" and config.kd.train == "head" and vectors
    views = _views(config, epochs)
    once = (
        steps_per_epoch(plan.images, batch_size) * batch_size if _aligns(config, job) else 0
    )  # before the first step
    filled = once if fills_banks(config.crd) else 0
    asked = once if takes_statistics(config.crd) else filled
    passes = 0 if frozen else steps * batch_size
    computed = 0 if config.kd.features == "teacher" else views * plan.images
    live = views * plan.images if frozen else passes + asked
    alpha = _alpha(config, job)
    return Training(
        job=job.label,
        epochs=epochs,
        planned=plan.epochs,
        images=plan.images,
        balanced=plan.balanced,
        batch_size=batch_size,
        steps=steps,
        passes=passes,
        forward_only=computed if frozen else filled,
        frozen=frozen,
        teacher_passes=_teacher_passes(config, job, plan.images, live),
        cached=config.teacher.views > 0 and _asks_teacher(config, job),
        parameters=plan.parameters,
        optimizer=plan.optimizer,
        reported=f"best of the last {min(plan.picks, epochs)} by validation" if plan.picks else "last",
        alpha=alpha,
        temperature=None if alpha is None else _temperature(config, job),
        accumulate=settings_of(experiment.config, job).optimizer.accumulate,
        usage=read_usage(folder.timing, epochs),
    )


def _plan(experiment: Experiment, config: Config, job: JobName, student: nn.Module, teacher: nn.Module) -> _Plan:
    data, size = experiment.data, config.data.image_size
    validated, count = data.val is not None, len(data.train)
    if job == TEACHER:
        own, all_of_it = config.teacher, count_parameters(teacher)
        words, picks = _words(own.optimizer), own.epochs if validated else 0
        return _Plan(own.epochs, own.batch_size, words, all_of_it, count, picks=picks)
    if job.kind == "baseline":
        words, all_of_it = _words(config.baselines.optimizer), count_parameters(student)
        few = config.baseline_epochs if config.baselines.until == "plateau" else config.kd.epochs
        picks = few if validated else 0
        return _Plan(config.baseline_epochs, config.baselines.batch_size, words, all_of_it, count, picks=picks)
    if job.kind == "stage1":
        reached = depends_on(student, _aligned_taps(config, student), size)
        words = _words(config.crd.optimizer)
        return _Plan(config.crd.epochs, config.crd.batch_size, words, _number(reached), count)
    kd, balanced = config.kd, config.kd.images == "balanced"
    if balanced:
        count, validated = len(data.balanced or ()), False
    network = teacher if kd.features == "teacher" else student
    trained = _stage2_parameters(config, network, teacher)
    picks = kd.epochs if validated else 0
    return _Plan(kd.epochs, kd.batch_size, _words(kd.optimizer, kd), trained, count, balanced, picks)


def _aligned_taps(config: Config, student: nn.Module) -> list[str]:
    """The taps that stage 1 has a loss at."""
    weights = (config.crd.lambda_penultimate, config.crd.lambda_last)
    taps = config.student.taps or default_taps(student, config.data.image_size)
    return [tap for tap, weight in zip(taps, weights, strict=True) if weight > 0]


def _stage2_parameters(config: Config, network: nn.Module, teacher: nn.Module) -> int:
    if config.kd.head == "teacher":  # a linear projector, with its bias, in front of the teacher's classifier
        width = inputs_of(classifier(teacher)[1])
        return (inputs_of(classifier(network)[1]) + 1) * width
    part = part_of(network, config.kd.train, config.student.taps, config.data.image_size)
    return _number(part.parameters)


def _number(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _words(optimizer: Optimizer, kd: KD | None = None) -> str:
    words = f"{optimizer.name} {optimizer.lr:g} {optimizer.schedule}"
    words += "" if optimizer.ema is None else f", average {optimizer.ema:g}"
    return f"{words}, features {kd.feature_lr:g}" if kd is not None and kd.train != "head" else words


def _views(config: Config, epochs: int) -> int:
    """Views of the training images that `epochs` epochs on frozen features need."""
    return min(config.teacher.views, epochs) if config.teacher.views else epochs


def _aligns(config: Config, job: JobName) -> bool:
    return job.kind == "stage1" or (job.kind == "baseline" and TERMS[config.method_of(job.of)].crd)


def _asks_teacher(config: Config, job: JobName) -> bool:
    if job.kind == "stage2":
        return config.kd.alpha > 0 or "teacher" in (config.kd.head, config.kd.features)
    return job.kind == "stage1" or (job.kind == "baseline" and config.method_of(job.of) != "scratch")


def _teacher_passes(config: Config, job: JobName, images: int, live: int) -> int:
    """As many as images are asked for where the teacher runs live, at most V an image from a cache."""
    if not _asks_teacher(config, job):
        return 0
    return config.teacher.views * images if config.teacher.views else live


def _alpha(config: Config, job: JobName) -> float | None:
    if job.kind == "stage2":
        return config.kd.alpha if config.kd.alpha > 0 and config.kd.head == "new" else None
    return config.baseline_alpha if job.kind == "baseline" and TERMS[config.method_of(job.of)].kl else None


def _temperature(config: Config, job: JobName) -> float:
    return config.kd.temperature if job.kind == "stage2" else config.baseline_temperature
