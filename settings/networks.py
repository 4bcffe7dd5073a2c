"""Sections on the two networks: architecture, initial weights, and the teacher's own training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from settings.methods import drop_removed, expand_losses
from settings.section import Count, Deviations, FilePath, Means, Number, Section, Seed, option
from settings.stages import LossUse, Optimizer, Trained

TapName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Options = Annotated[dict[str, Any], BeforeValidator(lambda given: {} if given is None else given)]


class Network(Section):
    arch: str = option(
        "resnet8",
        "resnet8..110, wrn_16_2, vgg8, ShuffleV1 (see docs/models.md), one of torchvision, timm/NAME, or "
        "package.module:callable",
    )
    arch_options: Options = option({}, "further arguments of the network's class or function, null = none")
    stem: Literal["cifar", "imagenet"] = option(
        "cifar", "form of torchvision's resnets and vggs: for small images, or the original"
    )
    weights: str | None = option(None, "torchvision's or timm's weights to start from, for example DEFAULT")
    image_size: Count | Literal["weights"] | None = option(
        None, "side in pixels that the network reads; weights = that of the weights (default: data.image_size)"
    )
    mean: Means | Literal["data"] | None = option(
        None, "channel means in 0..1 that the network reads (default: of the named weights, otherwise the data's)"
    )
    std: Deviations | Literal["data"] | None = option(
        None, "channel deviations in 0..1 (default: of the named weights, otherwise the data's)"
    )
    norm_momentum: Annotated[float, Field(gt=0, le=1)] | None = option(
        None, "share of each batch in batch norm's running statistics (default: the network's own)"
    )
    taps: dict[TapName, str] = option(
        {},
        "places by name, MODULE or MODULE:input for what it reads; found are penultimate (end of the block before "
        "the last), last and features (what the classifier reads), stage1, stage2, ... (end of each stage)",
    )

    @property
    def has_connector(self) -> bool:
        """It answers through a connector and a copy of the teacher's classifier."""
        return False

    @model_validator(mode="after")
    def _check_input(self) -> Network:
        if type(self.mean) is not type(self.std):
            raise ValueError("mean and std go together: numbers for both, data for both, or neither")
        if self.image_size == "weights" and self.weights is None:
            raise ValueError("image_size: weights needs weights, name some or give a number of pixels")
        return self


class Student(Network):
    allow_untrained: bool = option(False, "let a method leave parameters at their initial values")


class ConnectedNetwork(Student):
    """The student of a stage with a connector; no section of a config."""

    @property
    def has_connector(self) -> bool:
        return True


def connect(student: Student) -> ConnectedNetwork:
    """Return a student's section with a connector behind it; its own modules move below `student`."""
    taps = {name: f"student.{place}" for name, place in student.taps.items()}
    return ConnectedNetwork(**{**student.model_dump(), "taps": taps})


class Teacher(Network, Trained):
    arch: str = option("resnet20", "as student.arch")
    checkpoint: FilePath | None = option(
        None, "a trained teacher: our model.pt or a state dict that fits teacher.arch"
    )
    init: FilePath | None = option(None, "weights that the teacher's own training starts from (--phase teacher)")
    seed: Seed = option(0, "seed of the teacher's own training")
    epochs: Count = option(30, "epochs of the teacher's own training")
    batch_size: Count = option(128, "images a step")
    optimizer: Optimizer = option(Optimizer(), "steps and their size")
    losses: Annotated[dict[str, LossUse], Field(min_length=1)] = option(
        {"ce": LossUse()}, "losses of its own training by name, as those of a stage"
    )
    cached_views: Number = option(
        0, "0 = the teacher runs live; V > 0 = its outputs are cached for V augmented views an image"
    )

    @field_validator("losses", mode="before")
    @classmethod
    def _expand_losses(cls, losses: Any) -> Any:
        return drop_removed(expand_losses(losses)) if isinstance(losses, dict) else losses

    @model_validator(mode="after")
    def _check_warmup(self) -> Teacher:
        self.optimizer.check_warmup(self.epochs)
        return self
