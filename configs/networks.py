"""Options of the two networks: what they are, what they start from, and how the teacher is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from configs.section import Count, Deviation, Fraction, NonNegative, Positive, Section, Seed, about
from configs.stopping import Stopping

Decay = Annotated[float, Field(gt=0, lt=1)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]
Taps = Annotated[list[str], Field(min_length=2, max_length=2)]
Means = Annotated[list[Fraction], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Deviation], Field(min_length=3, max_length=3)]


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
        "cosine", "how the rate changes over the phase"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = about(
        0.95, "factor an epoch (exponential) or at each milestone (multistep)"
    )
    milestones: list[Fraction] = about([0.5, 0.75, 0.9], "fractions of the phase at which multistep decays")

    @model_validator(mode="after")
    def _check(self) -> Optimizer:
        if self.warmup > 0 and self.schedule == "onecycle":
            raise ValueError("schedule: onecycle has a warm-up of its own, leave warmup at 0")
        return self

    def check_warmup(self, epochs: int) -> None:
        """Raise `ValueError` for a warm-up that leaves nothing of a phase of so many epochs."""
        if self.warmup >= epochs:
            raise ValueError(
                f"optimizer.warmup={self.warmup:g} leaves nothing of {epochs} epochs: warm up in fewer"
            )


class Network(Section):
    arch: str = about(
        "resnet8",
        "resnet8..110, resnet8x4, resnet32x4, a torchvision classifier's name, timm/NAME, or "
        "package.module:callable for a class or function of your own",
    )
    arch_options: dict[str, Any] = about({}, "further arguments of the network's class or function, by name")
    stem: Literal["cifar", "imagenet"] = about(
        "cifar", "first layers of torchvision's resnets: 3x3 stride 1 without pooling, or the original"
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
    taps: Taps | None = about(
        None,
        "two module names, shallow first, with :input behind a name for what the module reads (default: the end "
        "of the block before the last, and what the classifier reads)",
    )

    @field_validator("arch_options", mode="before")
    @classmethod
    def _none_of_them(cls, options: Any) -> Any:
        return {} if options is None else options  # null takes back what a base file says

    @field_validator("taps")
    @classmethod
    def _two_places(cls, taps: list[str] | None) -> list[str] | None:
        if taps is not None and taps[0] == taps[1]:
            raise ValueError("both taps are the same, name a shallower and a deeper module")
        return taps

    @model_validator(mode="after")
    def _input(self) -> Network:
        if type(self.mean) is not type(self.std):
            raise ValueError("mean and std go together: numbers for both, data for both, or neither")
        if self.image_size == "weights" and self.weights is None:
            raise ValueError("image_size: weights needs weights, name some or give a number of pixels")
        return self


class Student(Network):
    allow_untrained: bool = about(
        False, "whether taps may be named that leave parameters which neither stage trains at their initial values"
    )


class Teacher(Network, Stopping):
    arch: str = about("resnet20", "as student.arch")
    checkpoint: Path | None = about(None, "a trained teacher: our model.pt or a state dict that fits teacher.arch")
    init: Path | None = about(None, "weights that the teacher's own training starts from (--phase teacher)")
    seed: Seed = about(0, "seed of the teacher's own training")
    epochs: Count = about(30, "epochs of the teacher's own training (at most with until: plateau)")
    batch_size: Count = about(128, "images a step")
    optimizer: Optimizer = about(Optimizer(), "the teacher's optimizer")
    label_smoothing: Smoothing = about(0.0, "share of each label that its cross-entropy spreads over all classes")
    views: Annotated[int, Field(ge=0)] = about(
        0, "0 = the teacher runs live; V > 0 = its outputs are cached for V augmented views an image"
    )

    @model_validator(mode="after")
    def _check_warmup(self) -> Teacher:
        self.optimizer.check_warmup(self.epochs)
        return self
