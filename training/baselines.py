"""End-to-end baselines on the two stages' budget: scratch, kd, crd and crd_kd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from configs.schema import Config
from dataset.images import Batch
from dataset.prepare import TrainingData
from losses.kd import cross_entropy, distillation_terms
from models.machine import Machine
from models.taps import TappedModel
from training import distributed
from training.alignment import HierarchicalLoss, build_losses
from training.engine import Measures, Objective, Plan, Term, evaluate_splits, seed_everything, top1_of
from training.experiment import Experiment
from training.given import FINISHED, Given
from training.job_name import baseline
from training.prepared import Prepared
from training.stopping import ends_by_validation, how_it_ended
from training.teacher import CrossEntropy
from training.teacher_outputs import TeacherOutputs
from training.weights import of_batch


@dataclass(frozen=True)
class Terms:
    """What a baseline minimises beside the cross-entropy."""

    kl: bool
    crd: bool


TERMS: dict[str, Terms] = {  # by method
    "scratch": Terms(kl=False, crd=False),
    "kd": Terms(kl=True, crd=False),
    "crd": Terms(kl=False, crd=True),
    "crd_kd": Terms(kl=True, crd=True),
}


class EndToEnd(Objective):
    """Cross-entropy with the teacher's KL, the CRD terms, or both, for the whole network at once.

    Args:
        model: the student.
        tapped: the same student with its taps.
        teacher: its teacher's outputs.
        losses: the alignment's terms, or None for none.
        use_kl: whether the KL term takes its share α of the cross-entropy.
        config: of the run.
        weights: (N,) how much each training image counts in all terms, None for all alike.
    """

    def __init__(
        self,
        model: nn.Module,
        tapped: TappedModel,
        teacher: TeacherOutputs,
        losses: HierarchicalLoss | None,
        use_kl: bool,
        config: Config,
        data: TrainingData,
        machine: Machine,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.image_weights = weights
        self.model, self.tapped, self.losses = model, tapped, losses
        self.teacher = teacher
        self.alpha = config.baseline_alpha if use_kl else 0.0
        self.temperature, self.crd_weight = config.baseline_temperature, config.baselines.crd_weight
        self.smoothing = config.baseline_smoothing
        self.data = data
        self.machine = machine

    def forward(self, batch: Batch) -> dict[str, Term]:
        student, teacher = self.tapped(batch.images), self.teacher(batch)
        weights = of_batch(self.image_weights, batch)
        if self.alpha:
            both = distillation_terms(
                student.logits, teacher.logits, batch.targets, self.temperature, weights, self.smoothing
            )
            terms = {"ce": Term(both.ce, 1 - self.alpha), "kl": Term(both.kl, self.alpha)}
        else:
            terms = {"ce": Term(cross_entropy(student.logits, batch.targets, weights, self.smoothing), 1.0)}
        if self.losses is not None:
            aligned = self.losses(student, teacher, batch.indices, weights)
            terms |= {name: Term(term.value, self.crd_weight * term.weight) for name, term in aligned.items()}
        terms["top1"] = Term(top1_of(student.logits, batch.labels))
        return terms

    def begin(self, batches: Iterator[Batch]) -> None:
        if self.losses is not None:
            self.losses.prepare(self.tapped, self.teacher, batches, self.machine)

    def begin_epoch(self) -> None:
        if self.losses is not None:
            self.losses.reshuffle()

    def measure(self) -> Measures:
        return evaluate_splits(self.model, self.data, self.machine)


def train_baseline(experiment: Experiment, name: str, seed: int) -> None:
    """Train one baseline for one seed, from the same weights, in the same order, on the same views.

    name: a method, or one of `baselines.variants`.
    """
    machine, folder = experiment.machine, experiment.folder.job(baseline(seed, name))
    prepared = prepare_baseline(experiment, name, seed)
    history, model = prepared.fit(machine, folder), prepared.objective.model
    measures = evaluate_splits(model, prepared.data, machine)
    if distributed.rank() == 0:
        folder.finish(model, {**how_it_ended(history, prepared.plan), **measures})
    distributed.barrier()


def prepare_baseline(experiment: Experiment, name: str, seed: int, given: Given = FINISHED) -> Prepared:
    """What one baseline minimises for one seed, on which images, and for how long."""
    experiment = replace(experiment, config=experiment.config.baseline(name))
    config, data, machine = experiment.config, experiment.data, experiment.machine
    method, settings = config.method_of(name), config.baselines
    weights = given.weights(experiment, settings, seed)
    model = experiment.new_student(seed)
    objective: Objective = CrossEntropy(model, data, machine, weights, config.baseline_smoothing)
    if method != "scratch":
        teacher = experiment.tapped(given.teacher(experiment), config.teacher)
        tapped = experiment.tapped(model, config.student)
        seed_everything(seed, 1)
        losses = build_losses(experiment, tapped, teacher) if TERMS[method].crd else None
        outputs = given.outputs(experiment, teacher)
        objective = EndToEnd(model, tapped, outputs, losses, TERMS[method].kl, config, data, machine, weights)
    plan = Plan(
        config.baseline_epochs,
        settings.batch_size,
        settings.optimizer,
        seed,
        views=config.teacher.views,
        candidates=0 if settings.until == "plateau" else config.kd.epochs,
        ended=ends_by_validation(settings),
        checkpoint_minutes=config.checkpoint_minutes,
        rate_key="baselines.optimizer.lr"
        if name == method
        else f"baselines.variants.{name}.baselines.optimizer.lr",
    )
    return Prepared(objective, data, plan)
