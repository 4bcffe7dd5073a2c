"""Stage 2: train the classifier, and at most the last block slowly, on the teacher's softened logits.

With frozen features (`train: head`) they are computed once a view, and an epoch then makes no images.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from configs import stages
from dataset.images import Batch
from dataset.prepare import TrainingData
from losses.kd import cross_entropy, distillation_terms
from models.heads import classifier
from models.machine import Machine
from models.parts import Part, part_of
from models.structure import reads_features
from models.taps import head_inputs
from training import distributed
from training.engine import Measures, Objective, Plan, Term, evaluate_splits, seed_everything, top1_of
from training.experiment import Experiment
from training.features import FrozenFeatures
from training.given import FINISHED, Given
from training.job_name import baseline
from training.prepared import Prepared
from training.projector import Projection
from training.stopping import ends_by_validation, how_it_ended
from training.teacher_head import TeacherSide, teacher_side, views_kept
from training.teacher_outputs import TeacherOutputs
from training.weights import of_batch


class Distillation(Objective):
    """α · T² · KL + (1 − α) · CE for the head, the last block and the head, or the whole network.

    What does not train keeps its parameters and its batch statistics bit for bit.

    Args:
        model: the student.
        teacher: its teacher's outputs, None where α = 0.
        part: what of the student trains.
        settings: the config's section kd.
        features: the student's frozen features where only its head trains; without them it sees images.
        weights: (N,) how much each training image counts, None for all alike.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: TeacherOutputs | None,
        part: Part,
        settings: stages.KD,
        data: TrainingData,
        machine: Machine,
        features: FrozenFeatures | None = None,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.teacher = teacher
        self.settings = settings
        self.data = data
        self.machine = machine
        self.features = features
        self.image_weights = weights
        self.sees_images = features is None
        self.part = part  # no module of its own: what it holds belongs to `model`
        model.requires_grad_(False)
        for parameter in part.parameters:
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        self.model.eval()
        for module in self.part.modules:
            module.train(mode)
        return self

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The head at `lr`, whatever else trains at `feature_lr`."""
        head = list(classifier(self.model)[1].parameters())
        own = {id(parameter) for parameter in head}
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in own]
        groups = [{"params": head, "lr": lr}]
        return [*groups, {"params": rest, "lr": self.settings.feature_lr}] if rest else groups

    def forward(self, batch: Batch) -> dict[str, Term]:
        alpha, weights = self.settings.alpha, of_batch(self.image_weights, batch)
        if self.features is None:
            logits = self.model(batch.images)
        else:
            logits = classifier(self.model)[1](self.features(batch))
        top1 = Term(top1_of(logits, batch.labels))
        smoothing = self.settings.label_smoothing
        if self.teacher is None:  # α is 0
            return {"ce": Term(cross_entropy(logits, batch.targets, weights, smoothing), 1.0), "top1": top1}
        teacher, temperature = self.teacher(batch).logits, self.settings.temperature
        terms = distillation_terms(logits, teacher, batch.targets, temperature, weights, smoothing)
        return {"kl": Term(terms.kl, alpha), "ce": Term(terms.ce, 1 - alpha), "top1": top1}

    def measure(self) -> Measures:
        if self.features is None:
            return evaluate_splits(self.model, self.data, self.machine)
        return self.features.evaluate(classifier(self.model)[1])


def starting_network(experiment: Experiment, seed: int, given: Given = FINISHED) -> nn.Module:
    """The network whose classifier stage 2 trains, in evaluation mode.

    Stage 1's student comes with the classifier that it started from, any other with a new one.
    """
    config = experiment.config
    match config.kd.features:
        case "stage1":
            return given.trained(experiment, config.student, experiment.stage1(seed))
        case "random":
            model = experiment.new_student(seed).eval()
        case "teacher":
            model = given.teacher(experiment)
        case method:
            model = given.trained(experiment, config.student, experiment.folder.job(baseline(seed, method)))
    seed_everything(seed, 2)
    classifier(model)[1].reset_parameters()
    return model


def train_stage2(experiment: Experiment, seed: int) -> None:
    """Run stage 2 for one seed: by default from stage 1's student, on the training images."""
    machine, folder = experiment.machine, experiment.stage2(seed)
    prepared = prepare_stage2(experiment, seed)
    history, model = prepared.fit(machine, folder), prepared.objective.model
    measures = evaluate_splits(model, prepared.data, machine)
    if distributed.rank() == 0:
        folder.finish(model, {**how_it_ended(history, prepared.plan), **measures})
    distributed.barrier()


def prepare_stage2(experiment: Experiment, seed: int, given: Given = FINISHED) -> Prepared:
    """What stage 2 minimises for one seed, on which images, and for how long."""
    config, settings = experiment.config, experiment.config.kd
    if settings.images == "balanced":
        experiment = replace(experiment, data=experiment.data.on_balanced())
    model = starting_network(experiment, seed, given)
    teacher = teacher_side(experiment, seed, given)
    weights = given.weights(experiment, settings, seed)
    seed_everything(seed, 2)
    objective = _objective(experiment, model, teacher, weights, given)
    plan = Plan(
        settings.epochs,
        settings.batch_size,
        settings.optimizer,
        seed,
        first_epoch=config.crd.epochs,
        views=config.teacher.views,
        rate_key=experiment.key("kd.optimizer.lr"),
        checkpoint_minutes=config.checkpoint_minutes,
        ended=ends_by_validation(settings),
    )
    return Prepared(objective, experiment.data, plan)


def _objective(
    experiment: Experiment, model: nn.Module, teacher: TeacherSide | None, weights: Tensor | None, given: Given
) -> Objective:
    config, data, machine = experiment.config, experiment.data, experiment.machine
    settings = config.kd
    outputs = teacher.outputs if teacher is not None and settings.alpha > 0 else None
    part = part_of(model, settings.train, config.student.taps, config.data.image_size)
    if settings.train != "head" or not reads_features(model, config.data.image_size):
        return Distillation(model, outputs, part, settings, data, machine, weights=weights)
    own = settings.features == "teacher" and config.shortcut.pairs == "same"  # the teacher's, of the same images
    known = teacher.features if teacher is not None and own else None
    extract = partial(head_inputs, model, machine=machine)
    training = known or given.features(extract, data, views_kept(config))
    features = FrozenFeatures(model, data, machine, training)
    if teacher is not None and settings.head == "teacher":
        return Projection(model, features, teacher.features, teacher.linear_head, machine, weights)
    return Distillation(model, outputs, part, settings, data, machine, features, weights)
