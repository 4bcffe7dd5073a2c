"""The config's sections on the two stages, on end-to-end baselines, and on variants of both."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from configs.names import VariantName
from configs.networks import Optimizer, Smoothing
from configs.section import Count, Fraction, NonNegative, Positive, Section, Weighted, about
from configs.stopping import Stopping, Until

Method = Literal["scratch", "kd", "crd", "crd_kd"]
METHODS: tuple[Method, ...] = get_args(Method)
ALIGNED: tuple[Method, ...] = ("crd", "crd_kd")  # those with terms of the section crd
NO_WEIGHTS = "errors_of weights no losses from a bank: use negatives: batch, or objective: regression"


class CRD(Weighted):
    epochs: Count = about(20, "epochs of stage 1 (an upper bound with until: plateau)")
    batch_size: Count = about(64, "images a step")
    optimizer: Optimizer = about(
        Optimizer(lr=0.03, schedule="exponential", gamma=0.95), "optimizer of features and projections"
    )
    objective: Literal["nce", "infonce", "regression"] = about(
        "nce",
        "nce = Tian et al.'s binary form, infonce = softmax, regression = squared error to the teacher's whitened "
        "feature, for which nothing between negatives and bank_init counts",
    )
    negatives: Literal["bank", "shared", "batch"] = about(
        "bank",
        "bank: each anchor draws its own from a bank of all samples; shared: the batch draws one set; "
        "batch: the batch itself, with infonce and mode: instance",
    )
    mode: Literal["exact", "relax", "instance"] = about(
        "exact", "exact/relax: other classes are negatives; instance: all other samples are, labels unused"
    )
    num_negatives: Count = about(16384, "K, negatives drawn an anchor from the bank")
    dim: Count = about(256, "d, dimension of the projections")
    temperature: Positive = about(0.1, "temperature of the similarities")
    bank_momentum: Annotated[float, Field(ge=0, lt=1)] = about(0.5, "share of the old entry kept at an update")
    bank_init: Literal["random", "features"] = about(
        "random", "what banks hold at first: random vectors as published, or one pass of both networks' features"
    )
    ridge: Positive = about(0.01, "regression: share of the largest variance that whitening adds to each")
    whitening: Annotated[float, Field(ge=-0.5, le=0)] = about(
        -0.5, "regression: power of the variances, -0.5 = whitened, 0 = the teacher's feature as it is"
    )
    lambda_penultimate: NonNegative = about(0.5, "weight of the shallower tap's loss")
    lambda_last: NonNegative = about(1.0, "weight of the deeper tap's loss")
    until: Until = about("epochs", "plateau ends stage 1 when validation cosine stalls")
    patience: Count = about(5, "epochs without improvement before plateau ends stage 1")
    min_delta: NonNegative = about(0.002, "smallest change of the validation cosine that counts")

    @model_validator(mode="after")
    def _check(self) -> CRD:
        contrast = (self.objective, self.mode)
        if self.negatives == "batch" and "regression" not in contrast and contrast != ("infonce", "instance"):
            raise ValueError("negatives: batch needs objective: infonce and mode: instance")
        if self.lambda_penultimate + self.lambda_last == 0:
            raise ValueError("lambda_penultimate and lambda_last are both 0: nothing to align")
        if self.errors_of is not None and self.from_bank:
            raise ValueError(NO_WEIGHTS)
        self.optimizer.check_warmup(self.epochs)
        return self

    @property
    def from_bank(self) -> bool:
        """Whether negatives come from a bank, whose losses take no weights of images."""
        return self.objective != "regression" and self.negatives != "batch"


class KD(Weighted, Stopping):
    epochs: Count = about(10, "epochs of stage 2 (at most with until: plateau)")
    batch_size: Count = about(64, "images a step")
    train: Literal["head", "last_block", "all"] = about("last_block", "what stage 2 trains")
    feature_lr: Positive = about(1e-5, "learning rate of whatever trains beside the head")
    optimizer: Optimizer = about(
        Optimizer(name="adam", lr=1e-4, weight_decay=0.0, schedule="constant"),
        "optimizer; its lr is the head's",
    )
    temperature: Positive = about(4.0, "T, softening of both models' logits")
    alpha: Fraction = about(0.9, "share of the teacher's KL, the rest is cross-entropy; 1 = KL alone")
    label_smoothing: Smoothing = about(0.0, "share of each label that cross-entropy spreads over all classes")
    features: Literal["stage1", "random", "teacher", "scratch", "kd", "crd", "crd_kd"] = about(
        "stage1",
        "whose features the classifier is trained on: stage 1's, untrained, the teacher's or a baseline's",
    )
    images: Literal["train", "balanced"] = about(
        "train", "images to train on; balanced = the held-out ones, each class under all planted cues alike"
    )
    head: Literal["new", "teacher"] = about(
        "new", "classifier to train: a new one, or a projector in front of the teacher's own"
    )
    teacher_head: str | None = about(
        None, "variant with features: teacher, whose classifier takes the place of the teacher's own"
    )

    @model_validator(mode="after")
    def _check(self) -> KD:
        if self.train != "head" and (self.features != "stage1" or self.head != "new"):
            raise ValueError("features other than stage1's and head: teacher need train: head")
        if self.until == "plateau" and self.images == "balanced":
            raise ValueError("until: plateau has no validation images where images: balanced trains on them")
        self.optimizer.check_warmup(self.epochs)
        return self


class Variant(Section):
    crd: dict[str, Any] = about({}, "fields of crd that differ; without any, stage 1 is shared")
    kd: dict[str, Any] = about({}, "fields of kd that differ")


class BaselineVariant(Section):
    method: Method = about("crd_kd", "which baseline it is")
    crd: dict[str, Any] = about({}, "fields of crd that differ, such as the form of a two-stage variant's twin")
    baselines: dict[str, Any] = about({}, "fields of baselines that differ")


class Baselines(Weighted, Stopping):
    methods: list[Method] = about(list(METHODS), "end-to-end baselines to train")
    variants: dict[VariantName, BaselineVariant] = about(
        {}, "further end-to-end baselines by name, each with what differs"
    )
    epochs: Count | None = about(None, "epochs of each, at most with until: plateau (default: of both stages)")
    batch_size: Count = about(64, "images a step")
    optimizer: Optimizer = about(Optimizer(), "optimizer of all of them")
    temperature: Positive | None = about(None, "T of the KL term of kd and crd_kd (default: kd.temperature)")
    alpha: Fraction | None = about(None, "share of the KL term in kd and crd_kd (default: kd.alpha)")
    label_smoothing: Smoothing | None = about(None, "as kd.label_smoothing, of all of them (default: that)")
    crd_weight: NonNegative = about(0.8, "weight of the CRD term in crd and crd_kd")

    @field_validator("methods")
    @classmethod
    def _each_once(cls, methods: list[Method]) -> list[Method]:
        if len(set(methods)) != len(methods):
            raise ValueError("a method is named twice, keep one of them")
        return methods
