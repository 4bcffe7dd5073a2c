"""Stage 2: train the classifier, and at most the last block slowly, on the teacher's softened logits."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

import config as schema
from dataset.loader import Batch, TrainingData
from losses.kd import softened_kl
from machine import Machine
from models import classifier
from models.taps import last_block
from training import distributed
from training.engine import Measures, Objective, Plan, Term, evaluate_splits, fit, seed_everything
from training.experiment import Experiment
from training.teacher import ensure_teacher
from training.teacher_outputs import TeacherOutputs, teacher_outputs


class Distillation(Objective):
    """α · T² · KL + (1 − α) · CE for the head, the last block and the head, or the whole network.

    What does not train keeps its parameters and its batch statistics bit for bit.
    """

    def __init__(
        self, model: nn.Module, teacher: TeacherOutputs, settings: schema.KD, data: TrainingData, machine: Machine
    ) -> None:
        super().__init__()
        self.model = model
        self.teacher = teacher
        self.settings = settings
        self.data = data
        self.machine = machine
        head = classifier(model)[1]
        parts = {"head": [head], "last_block": [last_block(model), head], "all": [model]}
        self.trained = parts[settings.train]  # a plain list, the modules belong to `model`
        model.requires_grad_(False)
        for module in self.trained:
            module.requires_grad_(True)

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        self.model.eval()
        for module in self.trained:
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
        alpha = self.settings.alpha
        logits = self.model(batch.images)
        kl = softened_kl(logits, self.teacher(batch).logits, self.settings.temperature)
        top1 = (logits.argmax(dim=1) == batch.labels).double().mean()
        return {
            "kl": Term(kl, alpha),
            "ce": Term(F.cross_entropy(logits, batch.labels), 1 - alpha),
            "top1": Term(top1),
        }

    def measure(self) -> Measures:
        return evaluate_splits(self.model, self.data, self.machine)


def train_stage2(experiment: Experiment, seed: int) -> None:
    """Run stage 2 for one seed from stage 1's student."""
    config, data, machine = experiment.config, experiment.data, experiment.machine
    settings, folder = config.kd, experiment.folder.job(seed, "stage2")
    teacher = experiment.tapped(ensure_teacher(experiment), config.teacher)
    model = experiment.trained(config.student, experiment.folder.job(seed, "stage1"))
    seed_everything(seed, 2)
    objective = Distillation(model, teacher_outputs(experiment, teacher), settings, data, machine)
    plan = Plan(
        settings.epochs,
        settings.batch_size,
        settings.optimizer,
        seed,
        first_view=config.crd.epochs,
        views=config.teacher.views,
    )
    history = fit(objective, data, plan, machine, folder)
    if distributed.rank() == 0:
        folder.finish(model, {"epochs": len(history), **evaluate_splits(model, data, machine)})
    distributed.barrier()
