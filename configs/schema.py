"""The one list of options: typed, ranged and described field by field.

`python main.py --help-config` prints this file as a table; `config_file.py` reads YAML files into it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from configs.merge import merge
from configs.names import RunName, VariantName
from configs.section import Count, Deviation, Fraction, NonNegative, Positive, Section, Seed, about
from configs.study import Study

Taps = Annotated[list[str], Field(min_length=2, max_length=2)]
Method = Literal["scratch", "kd", "crd", "crd_kd"]
METHODS: tuple[Method, ...] = get_args(Method)
RESERVED = ("teacher", "stage1", "stage2", "two_stage", *METHODS)  # names that no variant may take


class Data(Section):
    source: Literal["digits", "cifar10", "cifar100", "folder"] = about(
        "digits", "where images come from; folder = class folders under root"
    )
    root: Path | None = about(None, "folder of the images, or where torchvision downloads to (default: data/)")
    follow_links: bool = about(False, "whether links in root may lead out of it")
    image_size: Count = about(32, "side in pixels; images of another size are resized")
    split: Annotated[float, Field(gt=0, lt=1)] | None = about(
        None, "pool all images and train on this fraction, stratified (the paper: 0.7)"
    )
    bit_depth: Literal[8, 10, 12, 14, 16] | None = about(
        None, "bits in use of grey images stored with 16 (default: the fewest that hold the brightest value)"
    )
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = about(
        0.0, "part of the training images held out for early stopping and adaptive decisions"
    )
    crop: Annotated[int, Field(ge=0)] = about(4, "padding in pixels of the random crop, 0 = no crop")
    flip: bool = about(True, "random horizontal flip; wrong where a mirror image changes the class")
    mean: Annotated[list[Fraction], Field(min_length=3, max_length=3)] | None = about(
        None, "channel means in 0..1 to normalise with (default: of the training images)"
    )
    std: Annotated[list[Deviation], Field(min_length=3, max_length=3)] | None = about(
        None, "channel deviations in 0..1 (default: of the training images)"
    )
    seed: Seed = about(0, "seed of the split and of the augmented views, shared by all training seeds")
    cache_dir: Path = about(Path("data/cache"), "where decoded images and cached teacher outputs are kept")

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.crop >= self.image_size:
            raise ValueError(
                f"crop {self.crop} is a padding and must be smaller than image_size {self.image_size}"
            )
        return self


class Shortcut(Section):
    cue: Literal["none", "background", "tint", "patch", "frame", "corruption", "gray", "file"] = about(
        "none", "what is planted in training images as a shortcut to their class; file = labelled in `file`"
    )
    conflicting: Fraction | Literal["uniform"] = about(
        0.05, "share of training images with the cue of another class; uniform = cues regardless of class"
    )
    teacher: Literal["biased", "unbiased"] = about(
        "biased", "cues of the teacher's training images: as `conflicting` says, or uniform"
    )
    students: Literal["biased", "unbiased"] = about("biased", "the same of the images that students train on")
    seed: Seed = about(0, "seed of the map from classes to cues and of each image's cue")
    file: Path | None = about(None, "CSV with the columns file,cue: cues that a folder's images have already")
    test_cues: Count = about(10, "cues that each test image is shown under, a fixed sample where there are more")

    @model_validator(mode="after")
    def _check(self) -> Shortcut:
        if (self.cue == "file") != (self.file is not None):
            raise ValueError("cue: file and a file with cue labels go together")
        return self


class Optimizer(Section):
    name: Literal["sgd", "adam"] = about("sgd", "sgd or adam")
    lr: Positive = about(0.05, "learning rate (peak rate for onecycle)")
    momentum: Annotated[float, Field(ge=0, lt=1)] = about(0.9, "momentum, sgd only")
    nesterov: bool = about(False, "Nesterov momentum, sgd only")
    weight_decay: NonNegative = about(5e-4, "L2 weight decay")
    schedule: Literal["constant", "exponential", "cosine", "multistep", "onecycle"] = about(
        "cosine", "how the rate changes over the phase"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = about(
        0.95, "factor an epoch (exponential) or at each milestone (multistep)"
    )
    milestones: list[Fraction] = about([0.5, 0.75, 0.9], "fractions of the phase at which multistep decays")


class Network(Section):
    arch: str = about("resnet8", "resnet8..110, resnet8x4, resnet32x4, or a torchvision classifier's name")
    stem: Literal["cifar", "imagenet"] = about(
        "cifar", "first layers of torchvision's resnets: 3x3 stride 1 without pooling, or the original"
    )
    weights: str | None = about(None, "torchvision weight name to start from, for example DEFAULT")
    taps: Taps | None = about(
        None,
        "two module names, shallow first, with :input behind a name for what the module reads (default: the end "
        "of the block before the last, and what the classifier reads)",
    )

    @field_validator("taps")
    @classmethod
    def _two_places(cls, taps: list[str] | None) -> list[str] | None:
        if taps is not None and taps[0] == taps[1]:
            raise ValueError("both taps are the same, name a shallower and a deeper module")
        return taps


class Student(Network):
    allow_untrained: bool = about(
        False, "whether taps may be named that leave parameters which neither stage trains at their initial values"
    )


class Teacher(Network):
    arch: str = about("resnet20", "as student.arch")
    checkpoint: Path | None = about(None, "a trained teacher: our model.pt or a state dict that fits teacher.arch")
    init: Path | None = about(None, "weights that the teacher's own training starts from (--phase teacher)")
    seed: Seed = about(0, "seed of the teacher's own training")
    epochs: Count = about(30, "epochs of the teacher's own training")
    batch_size: Count = about(128, "images a step")
    optimizer: Optimizer = about(Optimizer(), "the teacher's optimizer")
    views: Annotated[int, Field(ge=0)] = about(
        0, "0 = the teacher runs live; V > 0 = its outputs are cached for V augmented views an image"
    )


class CRD(Section):
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
        return self


class KD(Section):
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
        return self


class Variant(Section):
    crd: dict[str, Any] = about({}, "fields of crd that differ; without any, stage 1 is shared")
    kd: dict[str, Any] = about({}, "fields of kd that differ")


class BaselineVariant(Section):
    method: Method = about("crd_kd", "which baseline it is")
    crd: dict[str, Any] = about({}, "fields of crd that differ, such as the form of a two-stage variant's twin")
    baselines: dict[str, Any] = about({}, "fields of baselines that differ")


class Baselines(Section):
    methods: list[Method] = about(list(METHODS), "end-to-end baselines to train")
    variants: dict[VariantName, BaselineVariant] = about(
        {}, "further end-to-end baselines by name, each with what differs"
    )
    epochs: Count | None = about(None, "epochs of each (default: those of stage 1 and stage 2 together)")
    batch_size: Count = about(64, "images a step")
    optimizer: Optimizer = about(Optimizer(), "optimizer of all of them")
    temperature: Positive | None = about(None, "T of the KL term of kd and crd_kd (default: kd.temperature)")
    alpha: Fraction | None = about(None, "share of the KL term in kd and crd_kd (default: kd.alpha)")
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

    def resolved(self) -> Config:
        """The same with what the baselines take from the two stages written out."""
        followed = {
            "epochs": self.baseline_epochs,
            "alpha": self.baseline_alpha,
            "temperature": self.baseline_temperature,
        }
        return self.model_copy(update={"baselines": self.baselines.model_copy(update=followed)})

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.crd.until == "plateau" and self.data.val_fraction == 0:
            raise ValueError("crd.until: plateau needs data.val_fraction > 0, test data decides nothing")
        if self.crd.until == "plateau" and self.shortcut.cue != "none":
            raise ValueError("crd.until: plateau has no validation images where a cue is planted: use epochs")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each seed once")
        for name in self.variants:
            self._check_variant(name)
        for name in self.baselines.variants:
            self._check_baseline(name)
        return self

    def _check_baseline(self, name: str) -> None:
        if name in RESERVED or name in self.variants:
            raise ValueError(f"baselines.variants.{name}: the name is taken, choose another")
        if {"methods", "variants"} & set(self.baselines.variants[name].baselines):
            raise ValueError(f"baselines.variants.{name}: methods and variants have no place in one of them")
        _validated(f"baselines.variants.{name}", lambda: self.baseline(name))

    def _check_variant(self, name: str) -> None:
        if name in RESERVED:
            raise ValueError(f"variants.{name}: the name is taken, choose another")
        kd = _validated(f"variants.{name}", lambda: self.variant(name)).kd
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
        raise ValueError(f"{where}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
