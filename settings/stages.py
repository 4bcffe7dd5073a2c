"""The config's sections on trainings: what every stage takes, and what a stage of a method says of itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from settings.names import MethodName
from settings.section import Count, NonNegative, Positive, Section, about

Decay = Annotated[float, Field(gt=0, lt=1)]
Part = Literal["features", "head", "last_block", "all"]


class Optimizer(Section):
    name: Literal["sgd", "adam", "adamw"] = about("sgd", "sgd, adam, or adamw with decoupled weight decay")
    lr: Positive = about(0.05, "learning rate (peak rate for onecycle)")
    momentum: Annotated[float, Field(ge=0, lt=1)] = about(0.9, "momentum, sgd only")
    nesterov: bool = about(False, "Nesterov momentum, sgd only")
    weight_decay: NonNegative = about(5e-4, "L2 weight decay")
    decay_norms: bool = about(True, "whether biases and norms decay too")
    clip_norm: Positive | None = about(None, "largest norm of all gradients together, above which they are scaled")
    accumulate: Count = about(
        1,
        "batches whose gradients are averaged for one step, an epoch's last takes what is left; each is still "
        "a batch of batch_size for batch norm, and for losses that contrast within it",
    )
    ema: Decay | None = about(
        None,
        "decay a step of a moving average of the weights, for example 0.99, over about 1 / (1 - ema) steps; the "
        "average is then what is measured and kept (default: none)",
    )
    warmup: NonNegative = about(0.0, "epochs in which the rate rises to lr, before the schedule takes the rest")
    schedule: Literal["constant", "exponential", "cosine", "multistep", "onecycle"] = about(
        "cosine", "how the rate changes over the stage"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = about(
        0.95, "factor an epoch (exponential) or at each milestone (multistep)"
    )
    milestones: list[Annotated[float, Field(ge=0, le=1)]] = about(
        [0.5, 0.75, 0.9], "fractions of the stage at which multistep decays"
    )

    @model_validator(mode="after")
    def _check(self) -> Optimizer:
        if self.warmup > 0 and self.schedule == "onecycle":
            raise ValueError("schedule: onecycle has a warm-up of its own, leave warmup at 0")
        return self

    def check_warmup(self, epochs: int) -> None:
        """Raise `ValueError` for a warm-up that leaves nothing of so many epochs."""
        if self.warmup >= epochs:
            raise ValueError(
                f"optimizer.warmup={self.warmup:g} leaves nothing of {epochs} epochs: warm up in fewer"
            )


class EarlyStopping(Section):
    watch: Literal["val_top1", "val_loss"] = about(
        "val_top1", "measure of the held-out images; a stage that trains features alone has their mean cosine"
    )
    patience: Count = about(5, "epochs without improvement before the stage ends")
    min_delta: NonNegative = about(0.0, "smallest improvement that counts; any does with 0")


class Trained(Section):
    """Options of every training."""

    batch_size: Count = about(64, "images a step")
    optimizer: Optimizer = about(Optimizer(), "steps and their size")
    early_stopping: EarlyStopping | None = about(
        None, "end before the epochs are over: {watch, patience, min_delta} (needs data.val_fraction)"
    )
    selection_epochs: Count | None = about(
        None,
        "last epochs of which the best by validation top-1 is kept, where images are held out (default: all; a "
        "stage that trains features alone keeps its last)",
    )


class LossUse(Section):
    """A loss in a stage: its weight, and options that differ from those of the section `losses`."""

    model_config = ConfigDict(extra="allow")

    weight: NonNegative = about(1.0, "what its terms are multiplied by")
    ramp_up: Annotated[int, Field(ge=0)] = about(0, "epochs over which the weight rises linearly")
    fade: bool = about(False, "whether the weight falls to zero over the stage, along a cosine")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the loss itself."""
        return dict(self.model_extra or {})


class Stage(Trained):
    """One training of a method, with everything said."""

    train: Part = about(
        "all",
        "features: what the losses' taps depend on, not the classifier; head: the classifier on frozen features; "
        "last_block: that and all behind the block before the last; all",
    )
    losses: Annotated[dict[str, LossUse], Field(min_length=1)] = about(
        {"ce": LossUse()}, "losses by name, each with its weight, or {weight, ramp_up, fade, its own options}"
    )
    epochs: Count = about(
        1, "epochs, or a share of training.epochs below 1 (default: what the other stages leave)"
    )
    feature_lr: Positive | None = about(
        None, "learning rate of what trains beside the classifier and the losses (default: the same)"
    )
    images: Literal["train", "balanced"] = about(
        "train", "images to train on; balanced = the held-out ones, each class under all planted cues alike"
    )
    upweight_errors_of: MethodName | None = about(
        None, "method: images that it gets wrong count more in training (none by default)"
    )
    error_weight: Positive = about(
        20.0, "weight of those images where others have 1, before all are divided by their mean"
    )
    starts_from: str | None = about(
        None, "method whose result the stage goes on from, or teacher (default: the stage before, or new weights)"
    )
    reset_head: bool = about(False, "whether the classifier begins anew")
    teacher: MethodName | None = about(
        None, "method that starts from the teacher and whose classifier takes the place of the teacher's"
    )

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if all(use.weight == 0 for use in self.losses.values()):
            raise ValueError("losses: every weight is 0, nothing is trained")
        if self.early_stopping is not None and self.images == "balanced":
            raise ValueError("early_stopping has no validation images where images: balanced trains on them")
        self.optimizer.check_warmup(self.epochs)
        return self


class Training(Trained):
    """Defaults of every stage of a student."""

    epochs: Count = about(30, "epochs of each method, all its stages together")
