"""Settings that somebody wrote and which count for nothing beside the others, each worth a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from configs.networks import Optimizer
from configs.plain_yaml import parse, read_text
from configs.reading import load_config
from configs.schema import Config
from configs.stages import ALIGNED, CRD
from configs.stopping import Until
from errors import UserError


class Trains(Protocol):
    """A section of one or more trainings."""

    @property
    def until(self) -> Until: ...

    @property
    def optimizer(self) -> Optimizer: ...


def idle_settings(path: Path, overrides: Sequence[str], config: Config, study: bool) -> list[str]:
    """What of a config file (less its bases) and of `--set` counts for nothing, a line each.

    A file is judged by itself, so an override that silences one of its keys is no reason for a word.

    Args:
        path: the file, readable as `load_config` found it.
        overrides: words of `--set`, valid too.
        config: both together.
        study: whether its grid counts, which may change any key of the sections that it names.
    """
    typed = [key for word in overrides for key in _keys_of_override(word)]
    written = [key for key in _keys(parse(read_text(path), str(path)) or {}) if key not in typed]
    found = [*_idle_among(typed, config, study), *_idle_among(written, _by_itself(path) or config, study)]
    return [f"{key} counts for nothing: {why}" for key, why in found]


def _by_itself(path: Path) -> Config | None:
    """What a file says without overrides; None where it is valid with them alone."""
    try:
        return load_config(path)
    except UserError:
        return None


def _idle_among(keys: Sequence[str], config: Config, study: bool) -> list[tuple[str, str]]:
    varied = {key.partition(".")[0] for point in config.study.grid for key in point} if study else set()
    idle = [(key, why) for names, why in _idle(config) for key in names]
    return [
        (key, next(why for name, why in idle if _within(key, name)))
        for key in keys
        if key.partition(".")[0] not in varied and any(_within(key, name) for name, _ in idle)
    ]


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _keys_of_override(word: str) -> Iterator[str]:
    key, _, text = word.partition("=")
    value = parse(text, f"--set {key}")
    yield from _keys(value, f"{key.strip()}.") if isinstance(value, dict) and value else [key.strip()]


def _keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys; a variant's are its own matter."""
    for name, value in values.items():
        if isinstance(value, dict) and value and name not in ("variants", "arch_options"):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _idle(config: Config) -> Iterator[tuple[list[str], str]]:
    """Keys that count for nothing in a config or any of its variants, and why."""
    variants = [config.variant(name) for name in config.variants]
    baselines = [config.baseline(name) for name in config.baselines.variants]
    forms = [config.crd, *(own.crd for own in variants)]
    forms += [config.baseline(name).crd for name in config.end_to_end if config.method_of(name) in ALIGNED]
    yield from _of_trainings("teacher", [config.teacher])
    yield from _of_trainings("crd", [config.crd, *(own.crd for own in variants)])
    yield from _of_trainings("kd", [config.kd, *(own.kd for own in variants)])
    yield from _of_trainings("baselines", [config.baselines, *(own.baselines for own in baselines)])
    yield from _of_forms(forms)
    yield from _of_images(config)
    yield from _of_baselines(config)
    if all(own.kd.train == "head" for own in (config, *variants)):
        yield ["kd.feature_lr"], "kd.train=head trains no features"
    if config.teacher.checkpoint is not None:
        of_training = ("epochs", "batch_size", "optimizer", "label_smoothing", "seed", "until")
        yield [f"teacher.{key}" for key in of_training], "teacher.checkpoint gives a teacher that is trained"


def _of_trainings(name: str, sections: Sequence[Trains]) -> Iterator[tuple[list[str], str]]:
    optimizers = [section.optimizer for section in sections]
    if all(section.until == "epochs" for section in sections):
        keys = [f"{name}.{key}" for key in ("patience", "min_delta", "watch")]
        yield keys, f"{name}.until=epochs ends at the last epoch whatever is measured"
    if all(one.name != "sgd" for one in optimizers):
        keys = [f"{name}.optimizer.{key}" for key in ("momentum", "nesterov")]
        yield keys, f"{name}.optimizer.name={optimizers[0].name} has none, sgd has"
    if all(one.schedule not in ("exponential", "multistep") for one in optimizers):
        yield [f"{name}.optimizer.gamma"], f"{name}.optimizer.schedule={optimizers[0].schedule} has no such factor"
    if all(one.schedule != "multistep" for one in optimizers):
        yield [f"{name}.optimizer.milestones"], f"{name}.optimizer.schedule={optimizers[0].schedule} has none"
    if name != "teacher" and all(getattr(section, "errors_of", None) is None for section in sections):
        yield [f"{name}.error_weight"], f"{name}.errors_of names nobody whose errors are weighted"


def _of_forms(forms: Sequence[CRD]) -> Iterator[tuple[list[str], str]]:
    if all(form.objective == "regression" for form in forms):
        contrast = ("negatives", "mode", "num_negatives", "dim", "temperature", "bank_momentum", "bank_init")
        yield [f"crd.{key}" for key in contrast], "crd.objective=regression contrasts nothing"
    if all(form.objective != "regression" for form in forms):
        yield (
            ["crd.ridge", "crd.whitening"],
            f"crd.objective={forms[0].objective} whitens nothing, regression does",
        )
    if not any(form.from_bank for form in forms):
        of_bank = ("num_negatives", "bank_momentum", "bank_init")
        yield [f"crd.{key}" for key in of_bank], "negatives come from no bank here"


def _of_images(config: Config) -> Iterator[tuple[list[str], str]]:
    data, cue = config.data, config.shortcut.cue
    if data.source == "digits":
        yield ["data.root"], "data.source=digits comes with scikit-learn, source: folder reads class folders"
    if data.source not in ("folder", "csv"):
        yield ["data.follow_links", "data.bit_depth"], f"data.source={data.source} is no folder of image files"
    if data.mix == "none":
        yield ["data.mix_strength"], "data.mix=none mixes nothing"
    if cue in ("none", "file"):
        keys = ["conflicting", "seed"] + (["teacher", "students", "test_cues"] if cue == "none" else [])
        yield [f"shortcut.{key}" for key in keys], f"shortcut.cue={cue} plants no cue"


def _of_baselines(config: Config) -> Iterator[tuple[list[str], str]]:
    methods = {config.method_of(name) for name in config.end_to_end}
    if not methods:
        keys = [key for key in type(config.baselines).model_fields if key not in ("methods", "variants")]
        yield [f"baselines.{key}" for key in keys], "baselines.methods names none to train"
    if not methods & set(ALIGNED):
        yield ["baselines.crd_weight"], "neither crd nor crd_kd is among baselines.methods"
    if not methods & {"kd", "crd_kd"}:
        yield ["baselines.temperature", "baselines.alpha"], "neither kd nor crd_kd is among baselines.methods"
