"""Methods: from the forms that a config may use to complete stages.

A method is a list of stages. A config gives it as one of
- nothing, for the shipped method of that name (`configs/methods/NAME.yaml`) or that of the base file; `false`
  removes one of the base file's;
- a list of stages, each a section of what differs from `training`;
- a section of what differs from the method of that name in the base file, or else from the shipped one: `stage1`,
  `stage2`, ... for one stage, any other key for every stage;
- `base: NAME` with what differs from another method, of the config or shipped;
- `twin_of: NAME` for one stage that trains everything by all losses of another method's stages; with `refit: head`
  a new classifier on its frozen features follows, trained as that method's last stage.

A normalised method is a section of stages with the key `base`, null where its stages are complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from errors import UserError, suggest_nearest
from settings.merge import merge
from settings.plain_yaml import parse, read_text
from settings.section import count_share

SHIPPED = Path(__file__).parents[1] / "configs" / "methods"
STAGE = re.compile(r"stage[1-9]")
BUILDS_ON = ("base", "twin_of")
WEIGHTED = ("upweight_errors_of", "error_weight")  # options of a stage
Values = dict[str, Any]


def list_shipped() -> list[str]:
    """Return the names of the shipped methods."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


@cache
def _read_shipped(name: str) -> str:
    return read_text(SHIPPED / f"{name}.yaml")


def load_shipped(name: str) -> Values:
    """Return a shipped method, normalised."""
    method: Values = normalise_method(name, parse(_read_shipped(name), f"configs/methods/{name}.yaml"))
    return method


def normalise_methods(values: Any, below: Mapping[str, Any]) -> Any:
    """Return a file's methods on those of its base, each normalised.

    Args:
        values: of the file: a list of names, which chooses, or a section, which adds and changes.
        below: of the base, normalised.

    Raises:
        UserError: a list that names a method twice.
    """
    if isinstance(values, list) and all(isinstance(name, str) for name in values):
        if len(set(values)) < len(values):
            raise UserError(f"methods: name each once, not {', '.join(values)}")
        return {name: below[name] if name in below else normalise_method(name, None) for name in values}
    if not isinstance(values, dict):
        return values
    found = dict(below)
    for name, value in values.items():
        is_change = isinstance(value, dict) and not value.keys() & set(BUILDS_ON)
        if value is False and name in found:
            del found[name]
        elif is_change and isinstance(found.get(name), dict):
            found[name] = _merge_method(found[name], value)
        elif value is not None or name not in found:
            found[name] = normalise_method(name, value)
    return found


def normalise_method(name: str, value: Any) -> Any:
    """Return a method as a section of stages; a value of another form stays as it is."""
    if isinstance(value, list):
        return {"base": None, **{f"stage{number}": _expand(stage) for number, stage in enumerate(value, start=1)}}
    value = {} if value is None else value
    if not isinstance(value, dict):
        return value
    if value.keys() & set(BUILDS_ON):
        return {key: _expand(part) for key, part in _expand(value).items()}
    if name in list_shipped():
        return _merge_method(load_shipped(name), value)
    has_stages = any(STAGE.fullmatch(key) for key in value)
    return _merge_method({"base": None}, value if has_stages or not value else {"stage1": value})


def _merge_method(method: Values, change: Mapping[str, Any]) -> Values:
    """Return a method with what differs: for every stage first, then for single ones."""
    own, common = _split_stages({key: _expand(part) for key, part in _expand(change).items()})
    if method.get("base") is not None or "twin_of" in method:  # whose stages are not known yet
        return merge(merge(method, common), own)
    every = {key: merge(part, common) if STAGE.fullmatch(key) else part for key, part in method.items()}
    for key, part in own.items():
        is_new = key not in method and isinstance(part, dict)
        every = merge(every, {key: merge(common, part) if is_new else part})
    return every


def _split_stages(method: Mapping[str, Any]) -> tuple[Values, Values]:
    """Return the single stages of a section, and its keys for every stage."""
    own = {key: part for key, part in method.items() if STAGE.fullmatch(key)}
    return own, {key: part for key, part in method.items() if key not in own}


def _expand(stage: Any) -> Any:
    """Return a stage with weights of losses written as sections."""
    losses = stage.get("losses") if isinstance(stage, dict) else None
    return {**stage, "losses": expand_losses(losses)} if isinstance(losses, dict) else stage


def expand_losses(losses: Mapping[str, Any]) -> Values:
    """Return losses with sections for weights: null weighs 1, false removes."""
    named = {name: 1.0 if use is None else use for name, use in losses.items()}
    return {name: {"weight": use} if isinstance(use, int | float) else use for name, use in named.items()}


def drop_removed(losses: Mapping[str, Any]) -> Values:
    """Return losses without those whose weight is false."""
    return {
        name: use for name, use in losses.items() if not (isinstance(use, dict) and use.get("weight") is False)
    }


def resolve_stages(
    name: str, methods: Mapping[str, Any], training: Values, shared: Mapping[str, Any]
) -> list[Values]:
    """Return the stages of a method as sections with every option.

    Args:
        name: of the method.
        methods: of the config, normalised.
        training: the section `training` as plain values.
        shared: the section `losses`, options by loss.

    Raises:
        ValueError: a method that does not exist, builds on itself, or whose stages do not fit its epochs.
    """
    defaults = {key: value for key, value in training.items() if key != "epochs"}
    stages = []
    for stage in _list_stages(name, methods, ()):
        uses_default = "optimizer" in stage and stage["optimizer"] is None  # null goes back to `training`'s
        stages.append(merge(defaults, {**stage, "optimizer": {}} if uses_default else stage))
    for stage, epochs in zip(stages, _share_epochs(stages, training["epochs"]), strict=True):
        stage["epochs"] = epochs
        if isinstance(stage.get("losses"), dict):
            stage["losses"] = {
                loss: {**shared.get(loss, {}), **use} if isinstance(use, dict) else use
                for loss, use in drop_removed(stage["losses"]).items()
            }
    return stages


def _list_stages(name: str, methods: Mapping[str, Any], above: tuple[str, ...]) -> list[Values]:
    """Return the stages of a method; `above` are the methods that build on it."""
    if name in above:
        raise ValueError(f"it builds on itself: {' -> '.join([*above, name])}")
    method = methods[name] if name in methods else _load_named(name, methods)
    if not isinstance(method, dict):
        raise ValueError(f"{method!r} is no method: give stages, or what differs from a method")
    own, common = _split_stages(method)
    base, twin, refit = (common.pop(key, None) for key in ("base", "twin_of", "refit"))
    if refit not in ((None, "head") if twin is not None else (None,)):
        raise ValueError(f"refit is {refit!r}, and only twin_of: METHOD has refit: head")
    if twin is not None:
        if base is not None or own:
            raise ValueError("twin_of gives its stages, leave out base and stage1, stage2, ...")
        stages = _list_stages(str(twin), methods, (*above, name))
        stages = [_join_stages(stages)] if refit is None else _refit_head(str(twin), stages)
    elif base is not None:
        stages = _list_stages(str(base), methods, (*above, name))
    elif own:
        stages = []
    else:
        hint = suggest_nearest(name, list_shipped()) or f": {', '.join(list_shipped())}"
        raise ValueError(f"it has no stages, and none is shipped by this name{hint}")
    stages = [merge(stage, common) for stage in stages]
    for key in sorted(own):
        number, stage = int(key.removeprefix("stage")), own[key]
        if not isinstance(stage, dict):
            raise ValueError(f"{key} is {stage!r}, give a section such as {{losses: {{ce: 1}}}}")
        if number > len(stages) + 1:
            raise ValueError(f"{key} comes without stage{number - 1}")
        stages[number - 1 : number] = [merge(stages[number - 1] if number <= len(stages) else common, stage)]
    return stages


def _load_named(name: str, methods: Mapping[str, Any]) -> Values:
    if name in list_shipped():
        return load_shipped(name)
    known = dict.fromkeys([*methods, *list_shipped()])
    hint = suggest_nearest(name, known) or f": {', '.join(known)}"
    raise ValueError(f"there is no method {name}{hint}")


def _join_stages(stages: list[Values]) -> Values:
    """Return one stage that trains everything by the losses of all."""
    losses: Values = {}
    for stage in stages:
        losses |= stage.get("losses", {})
    for name, use in losses.items():
        if isinstance(use, dict) and "through" in use:  # the twin trains a classifier of its own
            losses[name] = {**use, "through": "student"}
    images = {key: value for key, value in stages[-1].items() if key in WEIGHTED}
    if any(stage.get("connector") for stage in stages):
        images["connector"] = True
    return {**images, "train": "all", "losses": losses}


def _refit_head(name: str, stages: list[Values]) -> list[Values]:
    """Return the stages of a method as one, then its last as a new classifier on those features.

    The joined stage has the images and epochs of the stages before the last.
    """
    *before, last = stages
    if not before:
        raise ValueError(f"refit: head needs a method of several stages, and {name} has one")
    joined = _join_stages(stages)
    first = {key: value for key, value in joined.items() if key not in WEIGHTED or key in before[-1]}
    if "epochs" not in last:
        first["epochs"] = sum(stage.get("epochs", 0) for stage in before)
    return [first, {**last, "train": "head", "reset_head": True}]


def _share_epochs(stages: list[Values], budget: int) -> list[Any]:
    """Return the epochs of each stage: given, a share of the budget, or the rest."""
    counts = [stage.get("epochs") for stage in stages]
    shares = 0.0
    for number, epochs in enumerate(counts):
        if isinstance(epochs, float) and 0 < epochs < 1:
            shares += epochs
            counts[number] = max(1, count_share(epochs, budget))
        elif isinstance(epochs, float) and epochs.is_integer():
            counts[number] = int(epochs)
    left = budget - sum(count for count in counts if isinstance(count, int))
    waiting = counts.count(None)
    if waiting > 1:
        raise ValueError("more than one stage has no epochs: give those of all but one")
    if shares > 1:
        raise ValueError(f"its stages' shares of training.epochs={budget} are more than the whole: give less")
    if waiting and left < 1:
        raise ValueError(
            f"stage{counts.index(None) + 1} has no epochs, and the other stages leave none of "
            f"training.epochs={budget}: give its epochs, or the others fewer"
        )
    return [left if count is None else count for count in counts]
