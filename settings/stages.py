"""Sections on trainings: options of every stage, and those of one stage of a method."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from settings.section import Count, MethodName, NonNegative, Number, Positive, Section, Share, option

Rate = Annotated[float, Field(gt=0, le=1)]
Part = Literal["features", "head", "last_block", "all"]


class Optimizer(Section):
    name: Literal["sgd", "adam", "adamw"] = option("sgd", "sgd, adam, or adamw with decoupled weight decay")
    lr: Positive = option(0.05, "learning rate (peak rate for onecycle)")
    momentum: Annotated[float, Field(ge=0, lt=1)] = option(0.9, "momentum, sgd only")
    nesterov: bool = option(False, "Nesterov momentum, sgd only")
    weight_decay: NonNegative = option(5e-4, "L2 weight decay")
    decay_norms: bool = option(True, "apply weight decay to biases and norms too")
    clip_norm: Positive | None = option(
        None, "largest norm of all gradients together, larger ones are scaled down"
    )
    accumulate: Count = option(
        1, "batches whose gradients are averaged for one step; the losses see single batches"
    )
    ema: Share | None = option(None, "decay per step of a moving average of the weights, which is then kept")
    warmup: NonNegative = option(0.0, "epochs in which the rate rises to lr, before the schedule starts")
    schedule: Literal["constant", "exponential", "cosine", "multistep", "onecycle"] = option(
        "cosine", "how the rate changes over the stage"
    )
    gamma: Rate = option(0.95, "factor per epoch (exponential) or at each milestone (multistep)")
    milestones: list[NonNegative] = option(
        [0.5, 0.75, 0.9], "where multistep decays: shares of the stage up to 1, or numbers of epochs above 1"
    )

    @model_validator(mode="after")
    def _check(self) -> Optimizer:
        if self.warmup > 0 and self.schedule == "onecycle":
            raise ValueError("schedule: onecycle has a warm-up of its own, leave warmup at 0")
        return self

    def check_warmup(self, epochs: int) -> None:
        """Raise `ValueError` for a warm-up as long as the training."""
        if self.warmup >= epochs:
            raise ValueError(f"optimizer.warmup={self.warmup:g} leaves nothing of {epochs} epochs: give fewer")


class EarlyStopping(Section):
    watch: Literal["val_top1", "val_loss"] = option(
        "val_top1", "measure of the held-out images; stages with train: features use their mean cosine"
    )
    patience: Count = option(5, "epochs without improvement before the stage ends")
    min_delta: NonNegative = option(0.0, "smallest improvement that counts; any does with 0")


class Trained(Section):
    """Options of every training."""

    batch_size: Count = option(64, "images a step")
    optimizer: Optimizer = option(Optimizer(), "steps and their size")
    early_stopping: EarlyStopping | None = option(
        None, "end before the epochs are over: {watch, patience, min_delta} (needs data.val_fraction)"
    )
    selection_epochs: Count | None = option(
        None, "last epochs of which the best by validation top-1 is kept (default: all; features: the last)"
    )


class LossUse(Section):
    """A loss in a stage: its weight, and options that differ from those of the section `losses`."""

    model_config = ConfigDict(extra="allow")

    weight: NonNegative = option(1.0, "factor of the loss's terms")
    ramp_up: Number = option(0, "epochs over which the weight rises linearly")
    fade: bool = option(False, "let the weight fall to zero over the stage, along a cosine")
    through: Literal["student", "teacher"] = option(
        "student",
        "classifier behind the logits that the loss reads of the student; teacher: the teacher's, behind a linear "
        "projector that is folded into the student's afterwards (train: features)",
    )

    @property
    def options(self) -> dict[str, Any]:
        """Options of the loss itself."""
        return dict(self.model_extra or {})


class Stage(Trained):
    """One training of a method, with every option."""

    train: Part = option(
        "all",
        "features: what the losses' taps depend on; head: the classifier; last_block: with the head; all",
    )
    losses: Annotated[dict[str, LossUse], Field(min_length=1)] = option(
        {"ce": LossUse()}, "losses by name, each with its weight, or {weight, ramp_up, fade, its own options}"
    )
    epochs: Count = option(1, "epochs, or a share of training.epochs (default: what the other stages leave)")
    feature_lr: Positive | None = option(None, "learning rate of all but the classifier and losses (default: lr)")
    images: Literal["train", "balanced"] = option(
        "train", "images to train on; balanced = the held-out ones, each class under all planted cues alike"
    )
    sampling: Literal["images", "classes"] = option(
        "images",
        "an epoch shows each image once; classes = each class equally often, images of rare ones repeatedly",
    )
    upweight_errors_of: MethodName | None = option(None, "method whose wrong images weigh more in training")
    error_weight: Positive = option(20.0, "weight of those images, others weigh 1; all are divided by their mean")
    connector: bool = option(
        False,
        "answer through a connector from the last map and a copy of the teacher's classifier; both stay in the "
        "student (train: features trains the connector, not the classifier)",
    )
    starts_from: str | None = option(None, "method to start from, or teacher (default: the stage before)")
    reset_head: bool = option(False, "start with a new classifier")
    teacher: MethodName | None = option(None, "method whose classifier replaces the teacher's")

    @property
    def goes_through(self) -> bool:
        """A loss reads the student's features behind the teacher's classifier."""
        return any(use.through == "teacher" for use in self.losses.values())

    @property
    def has_answers(self) -> bool:
        """The student classifies at the end of the stage."""
        return self.train != "features" or self.connector or self.goes_through

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if self.goes_through and (self.train != "features" or self.connector):
            raise ValueError("through: teacher is for stages with train: features and without a connector")
        if self.connector and self.starts_from == "teacher":
            raise ValueError("connector is for students, and starts_from: teacher trains the teacher's network")
        if self.connector and self.train in ("head", "last_block"):
            raise ValueError(f"train: {self.train} leaves the new connector untrained, use features or all")
        if all(use.weight == 0 for use in self.losses.values()):
            raise ValueError("losses: every weight is 0, nothing is trained")
        if self.early_stopping is not None and self.images == "balanced":
            raise ValueError("early_stopping has no validation images where images: balanced trains on them")
        self.optimizer.check_warmup(self.epochs)
        return self


class Training(Trained):
    """Defaults of every stage of a student."""

    epochs: Count = option(30, "epochs of each method, all its stages together")
