"""Options of the two networks: what they are, what they start from, and how the teacher is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from settings.methods import drop_taken_back, spread_losses
from settings.section import Count, Deviation, Fraction, Section, Seed, about
from settings.stages import LossUse, Optimizer, Trained

TapName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Means = Annotated[list[Fraction], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Deviation], Field(min_length=3, max_length=3)]


class Network(Section):
    arch: str = about(
        "resnet8",
        "resnet8..110, wrn_16_2, vgg8, ShuffleV1 (see docs/models.md), one of torchvision, timm/NAME, or "
        "package.module:callable for a class or function of your own",
    )
    arch_options: dict[str, Any] = about({}, "further arguments of the network's class or function, by name")
    stem: Literal["cifar", "imagenet"] = about(
        "cifar", "form of torchvision's resnets and vggs: for small images, or the original"
    )
    weights: str | None = about(None, "torchvision's or timm's weights to start from, for example DEFAULT")
    image_size: Count | Literal["weights"] | None = about(
        None,
        "side in pixels that the network reads, resized from the data's; weights = that of the named weights "
        "(default: data.image_size)",
    )
    mean: Means | Literal["data"] | None = about(
        None, "channel means in 0..1 that the network reads (default: of the named weights, otherwise the data's)"
    )
    std: Deviations | Literal["data"] | None = about(
        None, "channel deviations in 0..1 (default: of the named weights, otherwise the data's)"
    )
    norm_momentum: Annotated[float, Field(gt=0, le=1)] | None = about(
        None,
        "share of each batch in batch norm's running statistics (default: the network's own; the 0.01 of "
        "mobilenets and efficientnets is for thousands of steps)",
    )
    taps: dict[TapName, str] = about(
        {},
        "places by name, with :input behind a module's name for what it reads; penultimate (end of the block "
        "before the last), last and features (what the classifier reads), stage1, stage2, ... (end of each stage) "
        "are found",
    )

    @field_validator("arch_options", mode="before")
    @classmethod
    def _none_of_them(cls, options: Any) -> Any:
        return {} if options is None else options  # null takes back what a base file says

    @model_validator(mode="after")
    def _input(self) -> Network:
        if type(self.mean) is not type(self.std):
            raise ValueError("mean and std go together: numbers for both, data for both, or neither")
        if self.image_size == "weights" and self.weights is None:
            raise ValueError("image_size: weights needs weights, name some or give a number of pixels")
        return self


class Student(Network):
    allow_untrained: bool = about(
        False, "whether a method may leave parameters at their initial values that no stage of it trains"
    )


class Teacher(Network, Trained):
    arch: str = about("resnet20", "as student.arch")
    checkpoint: Path | None = about(None, "a trained teacher: our model.pt or a state dict that fits teacher.arch")
    init: Path | None = about(None, "weights that the teacher's own training starts from (--phase teacher)")
    seed: Seed = about(0, "seed of the teacher's own training")
    epochs: Count = about(30, "epochs of the teacher's own training")
    batch_size: Count = about(128, "images a step")
    optimizer: Optimizer = about(Optimizer(), "steps and their size")
    losses: Annotated[dict[str, LossUse], Field(min_length=1)] = about(
        {"ce": LossUse()}, "losses of its own training by name, as those of a stage"
    )
    views: Annotated[int, Field(ge=0)] = about(
        0, "0 = the teacher runs live; V > 0 = its outputs are cached for V augmented views an image"
    )

    @field_validator("losses", mode="before")
    @classmethod
    def _spread(cls, losses: Any) -> Any:
        return drop_taken_back(spread_losses(losses)) if isinstance(losses, dict) else losses

    @model_validator(mode="after")
    def _check_warmup(self) -> Teacher:
        self.optimizer.check_warmup(self.epochs)
        return self
