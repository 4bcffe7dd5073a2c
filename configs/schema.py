"""The one list of options: typed, ranged and described field by field.

`python main.py --help-config` prints this file as a table; `config_file.py` reads YAML files into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from configs.images import Data, Shortcut
from configs.merge import merge
from configs.names import RunName, VariantName
from configs.networks import Optimizer, Smoothing, Student, Teacher
from configs.section import Count, Fraction, NonNegative, Positive, Section, Seed, Weighted, about
from configs.study import Study

Method = Literal["scratch", "kd", "crd", "crd_kd"]
METHODS: tuple[Method, ...] = get_args(Method)
ALIGNED: tuple[Method, ...] = ("crd", "crd_kd")  # those with terms of the section crd
NO_WEIGHTS = "errors_of weights no losses from a bank: use negatives: batch, or objective: regression"
RESERVED = ("teacher", "stage1", "stage2", "two_stage", *METHODS)  # names that no variant may take


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
    until: Literal["epochs", "plateau"] = about("epochs", "plateau ends stage 1 when validation cosine stalls")
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


class KD(Weighted):
    epochs: Count = about(10, "epochs of stage 2")
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
        self.optimizer.check_warmup(self.epochs)
        return self


class Variant(Section):
    crd: dict[str, Any] = about({}, "fields of crd that differ; without any, stage 1 is shared")
    kd: dict[str, Any] = about({}, "fields of kd that differ")


class BaselineVariant(Section):
    method: Method = about("crd_kd", "which baseline it is")
    crd: dict[str, Any] = about({}, "fields of crd that differ, such as the form of a two-stage variant's twin")
    baselines: dict[str, Any] = about({}, "fields of baselines that differ")


class Baselines(Weighted):
    methods: list[Method] = about(list(METHODS), "end-to-end baselines to train")
    variants: dict[VariantName, BaselineVariant] = about(
        {}, "further end-to-end baselines by name, each with what differs"
    )
    epochs: Count | None = about(None, "epochs of each (default: those of stage 1 and stage 2 together)")
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


class Config(Section):
    name: RunName = about("digits", "name of the run: files go to OUTPUT_DIR/name")
    seeds: Annotated[list[Seed], Field(min_length=1)] = about([0], "training seeds of the student side")
    precision: Literal["auto", "float32", "bfloat16"] = about(
        "auto", "auto picks bfloat16 where the hardware multiplies it natively"
    )
    sync_batch_norm: bool = about(False, "under torchrun on GPUs: batch norm's statistics are of all processes")
    checkpoint_minutes: NonNegative = about(
        15.0, "minutes between two checkpoints within an epoch, 0 = at its end and before a signal alone"
    )
    data: Data = about(Data(), "images")
    teacher: Teacher = about(Teacher(), "the frozen teacher")
    student: Student = about(Student(), "the student")
    crd: CRD = about(CRD(), "stage 1")
    kd: KD = about(KD(), "stage 2")
    baselines: Baselines = about(Baselines(), "end-to-end baselines on the same budget")
    shortcut: Shortcut = about(Shortcut(), "planted cues")
    variants: dict[VariantName, Variant] = about(
        {}, "further two-stage students by name, each with what differs from crd and kd"
    )
    study: Study = about(Study(), "runs of --phase study")

    def variant(self, name: str) -> Config:
        """This config with the fields of crd and kd that a variant changes."""
        changes = self.variants[name]
        return self.model_copy(
            update={
                "crd": CRD.model_validate(merge(self.crd.model_dump(), changes.crd)),
                "kd": KD.model_validate(merge(self.kd.model_dump(), changes.kd)),
            }
        )

    def baseline(self, name: str) -> Config:
        """This config with what an end-to-end variant changes; a method's own name changes nothing."""
        if name not in self.baselines.variants:
            return self
        changes = self.baselines.variants[name]
        return self.model_copy(
            update={
                "crd": CRD.model_validate(merge(self.crd.model_dump(), changes.crd)),
                "baselines": Baselines.model_validate(merge(self.baselines.model_dump(), changes.baselines)),
            }
        )

    def method_of(self, name: str) -> Method:
        """Which baseline an end-to-end method is, given by its own name or a variant's."""
        variants = self.baselines.variants
        return variants[name].method if name in variants else TypeAdapter(Method).validate_python(name)

    @property
    def end_to_end(self) -> list[str]:
        """Names of the end-to-end baselines, variants last."""
        return [*self.baselines.methods, *self.baselines.variants]

    @property
    def baseline_epochs(self) -> int:
        """Epochs of each baseline: its own setting, or the budget of the two stages."""
        return self.baselines.epochs or self.crd.epochs + self.kd.epochs

    @property
    def baseline_alpha(self) -> float:
        """Share of the KL term in kd and crd_kd: its own setting, or stage 2's."""
        return self.kd.alpha if self.baselines.alpha is None else self.baselines.alpha

    @property
    def baseline_temperature(self) -> float:
        """T of the KL term in kd and crd_kd: its own setting, or stage 2's."""
        return self.baselines.temperature or self.kd.temperature

    @property
    def baseline_smoothing(self) -> float:
        """Label smoothing of all baselines: its own setting, or stage 2's."""
        own = self.baselines.label_smoothing
        return self.kd.label_smoothing if own is None else own

    def resolved(self) -> Config:
        """The same with what the baselines take from the two stages written out."""
        followed = {
            "epochs": self.baseline_epochs,
            "alpha": self.baseline_alpha,
            "temperature": self.baseline_temperature,
            "label_smoothing": self.baseline_smoothing,
        }
        return self.model_copy(update={"baselines": self.baselines.model_copy(update=followed)})

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.crd.until == "plateau" and self.data.val_fraction == 0:
            raise ValueError("crd.until: plateau needs data.val_fraction > 0, test data decides nothing")
        if self.crd.until == "plateau" and self.shortcut.cue != "none":
            raise ValueError("crd.until: plateau has no validation images where a cue is planted: use epochs")
        if self.shortcut.pairs == "counterfactual" and self.teacher.views > 0:
            raise ValueError("shortcut.pairs: counterfactual needs a live teacher: set teacher.views=0")
        self._check_mix()
        self.baselines.optimizer.check_warmup(self.baseline_epochs)
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each seed once")
        for name in self.variants:
            self._check_variant(name)
        for name in self.baselines.variants:
            self._check_baseline(name)
        for name in self.end_to_end:
            self._check_weighted(name)
        self._check_errors_of("crd", self.crd)
        self._check_errors_of("kd", self.kd)
        return self

    def _check_mix(self) -> None:
        """What is drawn anew each step is in no cache of a teacher's outputs or of frozen features."""
        mix = self.data.mix
        if mix != "none" and self.teacher.views > 0:
            raise ValueError(f"data.mix: {mix} needs a live teacher: set teacher.views=0")
        for name in ("", *self.variants) if mix != "none" else ():
            key, own = (f"variants.{name}.kd", self.variant(name)) if name else ("kd", self)
            if own.kd.train == "head":
                raise ValueError(
                    f"data.mix: {mix} needs {key}.train: last_block or all, heads alone see no images"
                )

    def _check_errors_of(self, key: str, section: Weighted) -> None:
        if section.errors_of is not None and section.errors_of not in self.end_to_end:
            known = ", ".join(self.end_to_end) or "none"
            raise ValueError(
                f"{key}.errors_of: {section.errors_of} is no end-to-end baseline of this run: {known}"
            )

    def _check_weighted(self, name: str) -> None:
        """A method that is trained on another's errors comes after it, so no chain may end where it began."""
        key = "baselines" if name in METHODS else f"baselines.variants.{name}.baselines"
        own, seen, last = self.baseline(name), [name], self.baseline(name).baselines.errors_of
        self._check_errors_of(key, own.baselines)
        if last is not None and self.method_of(name) in ALIGNED and own.crd.from_bank:
            raise ValueError(f"{key}: {NO_WEIGHTS}")
        while last is not None and last in self.end_to_end:
            if last in seen:
                raise ValueError(f"{key}.errors_of: {last} would wait for itself: {' -> '.join([*seen, last])}")
            seen.append(last)
            last = self.baseline(last).baselines.errors_of

    def _check_baseline(self, name: str) -> None:
        if name in RESERVED or name in self.variants:
            raise ValueError(f"baselines.variants.{name}: the name is taken, choose another")
        if {"methods", "variants"} & set(self.baselines.variants[name].baselines):
            raise ValueError(f"baselines.variants.{name}: methods and variants have no place in one of them")
        if {"errors_of", "error_weight"} & set(self.baselines.variants[name].crd):
            raise ValueError(
                f"baselines.variants.{name}: crd.errors_of is of stage 1, use baselines: {{errors_of: ...}}"
            )
        _validated(f"baselines.variants.{name}", lambda: self.baseline(name))

    def _check_variant(self, name: str) -> None:
        if name in RESERVED:
            raise ValueError(f"variants.{name}: the name is taken, choose another")
        own = _validated(f"variants.{name}", lambda: self.variant(name))
        self._check_errors_of(f"variants.{name}.crd", own.crd)
        self._check_errors_of(f"variants.{name}.kd", own.kd)
        kd = own.kd
        if kd.features in METHODS and kd.features not in self.baselines.methods:
            raise ValueError(f"variants.{name}: {kd.features} is not among baselines.methods")
        if kd.images == "balanced" and self.data.val_fraction == 0:
            raise ValueError(f"variants.{name}: images: balanced needs data.val_fraction > 0")
        given = self.variants.get(kd.teacher_head or "")
        if kd.teacher_head and (given is None or self.variant(kd.teacher_head).kd.features != "teacher"):
            raise ValueError(f"variants.{name}: teacher_head names no variant with features: teacher")


def _validated(where: str, make: Callable[[], Config]) -> Config:
    """What `make` gives, or a ValueError that says in which variant a value is wrong."""
    try:
        return make()
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, [error.title.lower(), *problem["loc"]]))
        raise ValueError(f"{where}.{key}: {problem['msg'].removeprefix('Value error, ')}") from None
