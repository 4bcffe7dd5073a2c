"""The one list of options: typed, ranged and described field by field.

`python main.py --help-config` prints this file as a table. A YAML file may say `base: other.yaml` (relative
to itself) and then holds only what differs. `--set section.key=value` overrides any field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from errors import UserError, nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Taps = Annotated[list[str], Field(min_length=2, max_length=2)]
METHODS = ("scratch", "kd", "crd", "crd_kd")


def about(default: Any, description: str, **kwargs: Any) -> Any:
    """A field with its one-line description."""
    return Field(default, description=description, **kwargs)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Data(Section):
    source: Literal["digits", "cifar10", "cifar100", "folder"] = about(
        "digits", "where images come from; folder = class folders under root"
    )
    root: Path | None = about(None, "folder of the images, or where torchvision downloads to (default: data/)")
    image_size: Count = about(32, "side in pixels; images of another size are resized")
    split: Annotated[float, Field(gt=0, lt=1)] | None = about(
        None, "pool all images and train on this fraction, stratified (the paper: 0.7)"
    )
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = about(
        0.0, "part of the training images held out for early stopping and adaptive decisions"
    )
    crop: Annotated[int, Field(ge=0)] = about(4, "padding in pixels of the random crop, 0 = no crop")
    flip: bool = about(True, "random horizontal flip; wrong where a mirror image changes the class")
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = about(
        None, "channel means in 0..1 to normalise with (default: of the training images)"
    )
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = about(
        None, "channel deviations in 0..1 (default: of the training images)"
    )
    seed: int = about(0, "seed of the split and of the augmented views, shared by all training seeds")
    cache_dir: Path = about(Path("data/cache"), "where decoded images and cached teacher outputs are kept")


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
    taps: Taps | None = about(None, "two module names, shallow first (default: the last two residual blocks)")


class Teacher(Network):
    arch: str = about("resnet20", "as student.arch")
    checkpoint: Path | None = about(None, "a trained teacher: our model.pt or a state dict that fits teacher.arch")
    seed: int = about(0, "seed of the teacher's own training")
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
    objective: Literal["nce", "infonce"] = about("nce", "nce = Tian et al.'s binary form, infonce = softmax")
    negatives: Literal["bank", "batch"] = about(
        "bank", "where negatives come from; batch needs infonce and mode: instance"
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
    lambda_penultimate: NonNegative = about(0.5, "weight of the shallower tap's loss")
    lambda_last: NonNegative = about(1.0, "weight of the deeper tap's loss")
    until: Literal["epochs", "plateau"] = about("epochs", "plateau ends stage 1 when validation cosine stalls")
    patience: Count = about(5, "epochs without improvement before plateau ends stage 1")
    min_delta: NonNegative = about(0.002, "smallest change of the validation cosine that counts")

    @model_validator(mode="after")
    def _check(self) -> CRD:
        if self.negatives == "batch" and (self.objective, self.mode) != ("infonce", "instance"):
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


class Baselines(Section):
    methods: list[Literal[METHODS]] = about(list(METHODS), "end-to-end baselines to train")
    epochs: Count | None = about(None, "epochs of each (default: those of stage 1 and stage 2 together)")
    batch_size: Count = about(64, "images a step")
    optimizer: Optimizer = about(Optimizer(), "optimizer of all of them")
    temperature: Positive = about(4.0, "T of the KL term of kd and crd_kd")
    alpha: Fraction = about(0.9, "share of the KL term in kd and crd_kd")
    crd_weight: NonNegative = about(0.8, "weight of the CRD term in crd and crd_kd")


class Config(Section):
    name: str = about("digits", "name of the run: files go to OUTPUT_DIR/name", pattern=r"^[\w.-]+$")
    seeds: Annotated[list[int], Field(min_length=1)] = about([0], "training seeds of the student side")
    precision: Literal["auto", "float32", "bfloat16"] = about(
        "auto", "auto picks bfloat16 where the hardware multiplies it natively"
    )
    data: Data = about(Data(), "images")
    teacher: Teacher = about(Teacher(), "the frozen teacher")
    student: Network = about(Network(), "the student")
    crd: CRD = about(CRD(), "stage 1")
    kd: KD = about(KD(), "stage 2")
    baselines: Baselines = about(Baselines(), "end-to-end baselines on the same budget")

    @property
    def baseline_epochs(self) -> int:
        """Epochs of each baseline: its own setting, or the budget of the two stages."""
        return self.baselines.epochs or self.crd.epochs + self.kd.epochs

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.crd.until == "plateau" and self.data.val_fraction == 0:
            raise ValueError("crd.until: plateau needs data.val_fraction > 0, test data decides nothing")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each seed once")
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file with its bases, apply `key=value` overrides and validate.

    Raises:
        UserError: a file that is missing or not YAML, an unknown key, a value of the wrong type or range.
    """
    values = _read_yaml(path)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UserError(f"--set {override}: write KEY=VALUE, for example --set crd.temperature=0.07")
        _assign(values, key.strip(), _parse(text, f"--set {key}"))
    try:
        return Config.model_validate(_merge(Config().model_dump(), values))
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from None


def list_fields(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Yield (dotted key, type, default, description) of every option."""
    defaults = section()
    for name, field in section.model_fields.items():
        default = getattr(defaults, name)
        if isinstance(default, BaseModel):
            for key, kind, _, description in list_fields(type(default), f"{prefix}{name}."):
                yield key, kind, _lookup(default, key.removeprefix(f"{prefix}{name}.")), description
        else:
            yield f"{prefix}{name}", _type_name(field.annotation), default, field.description or ""


def config_table() -> str:
    """The options as a plain-text table for `--help-config`."""
    rows = [(key, f"{default}", f"{description} [{kind}]") for key, kind, default, description in list_fields()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{key:<{widths[0]}}  {default:<{widths[1]}}  {rest}" for key, default, rest in rows)


def to_yaml(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def differing_keys(first: Config, second: Config) -> list[str]:
    """Dotted keys in which two configs differ, the seeds aside (a run may gain seeds)."""
    keys = [key for key, *_ in list_fields() if key != "seeds"]
    return [key for key in keys if _lookup(first, key) != _lookup(second, key)]


def _lookup(section: BaseModel, key: str) -> Any:
    for part in key.split("."):
        section = getattr(section, part)
    return section


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin in (Union, UnionType):
        return _type_name(arguments[0])
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    return annotation.__name__.removeprefix("Posix").lower()


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{where}: not valid YAML, check quotes, brackets and indentation") from None


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UserError(f"{path}: its chain of base files comes back to itself")
    try:
        values = _parse(path.read_text(encoding="utf-8"), str(path)) or {}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"config {path}: {reason}; give a YAML file, those shipped are in configs/") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, see python main.py --help-config")
    base = values.pop("base", None)
    if base is None:
        return values
    return _merge(_read_yaml(path.parent / str(base), (*seen, path.resolve())), values)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        child = values.setdefault(section, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {key}: {section} is a value, not a section")
        values = child
    values[last] = value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = [name for name, *_ in list_fields()]
        sections = {name.rpartition(".")[0] for name in fields} - {""}
        hint = nearest(key, [*fields, *sorted(sections)])
        return f"unknown key {key}{hint} (python main.py --help-config lists all)"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict | BaseModel) else f", not {problem['input']!r}"
    return f"{key}: {message}{given}" if key else message
