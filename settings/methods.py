"""Methods: from what a config says of them to stages with everything said.

A method is a list of stages. In a config it is one of
- nothing, for the shipped method of that name (`configs/methods/NAME.yaml`) or what the base file says of it;
  `false` leaves out one of the base file's;
- a list of stages, each a section of what differs from `training`;
- a section of what differs from the method of that name in the base file, or else from the shipped one: `stage1`,
  `stage2`, ... for one stage, anything else for every stage;
- `base: NAME` with what differs from another method, of the config or shipped;
- `twin_of: NAME` for one stage that trains everything by all losses of another method's stages.

A normalised method says `base`: none where its stages are complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from errors import UserError, nearest
from settings.merge import merge
from settings.plain_yaml import parse, read_text

SHIPPED = Path(__file__).parents[1] / "configs" / "methods"
STAGE = re.compile(r"stage[1-9]")
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
    """Return a file's methods on those of its base, each a section; what is not of that form stays as it is.

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
        if value is False and name in found:
            del found[name]
        elif value is None and name in found:
            continue
        elif (
            isinstance(value, dict)
            and isinstance(found.get(name), dict)
            and not {"base", "twin_of"} & value.keys()
        ):
            found[name] = _lay_over(found[name], value)
        else:
            found[name] = normalise_method(name, value)
    return found


def normalise_method(name: str, value: Any) -> Any:
    """Return a method as a section of stages; what is not of that form stays as it is."""
    if isinstance(value, list):
        stages = {f"stage{number}": _spread(stage) for number, stage in enumerate(value, start=1)}
        return {"base": None, **stages}
    value = {} if value is None else value
    if not isinstance(value, dict):
        return value
    if {"base", "twin_of"} & value.keys():
        return {key: _spread(one) for key, one in _spread(value).items()}
    if re.fullmatch(r"\w+", name) and (SHIPPED / f"{name}.yaml").is_file():
        return _lay_over(load_shipped(name), value)
    complete = value if any(STAGE.fullmatch(key) for key in value) or not value else {"stage1": value}
    return _lay_over({"base": None}, complete)


def _lay_over(method: Values, value: Mapping[str, Any]) -> Values:
    """Return a method with what differs: for every stage first, then for single ones."""
    own = {key: _spread(stage) for key, stage in value.items() if STAGE.fullmatch(key)}
    common = _spread({key: one for key, one in value.items() if key not in own})
    if method.get("base") is not None or "twin_of" in method:  # whose stages are not known yet
        return merge(merge(method, common), own)
    every = {key: merge(stage, common) if STAGE.fullmatch(key) else stage for key, stage in method.items()}
    named = {
        key: merge(common, stage) if key not in method and isinstance(stage, dict) else stage
        for key, stage in own.items()
    }
    return merge(every, named)


def _spread(stage: Any) -> Any:
    """Return a stage with weights of losses written as sections."""
    losses = stage.get("losses") if isinstance(stage, dict) else None
    return {**stage, "losses": spread_losses(losses)} if isinstance(losses, dict) else stage


def spread_losses(losses: Mapping[str, Any]) -> Values:
    """Return losses by name, each a section: a number is its weight, nothing weighs 1, false takes it back."""
    named = {name: 1.0 if use is None else use for name, use in losses.items()}
    return {name: {"weight": use} if isinstance(use, int | float) else use for name, use in named.items()}


def drop_taken_back(losses: Mapping[str, Any]) -> Values:
    """Return losses without those whose weight is false."""
    return {
        name: use for name, use in losses.items() if not (isinstance(use, dict) and use.get("weight") is False)
    }


def resolve_stages(
    name: str, methods: Mapping[str, Any], training: Values, shared: Mapping[str, Any]
) -> list[Values]:
    """Return the stages of a method as sections with everything said.

    Args:
        methods: of the config, normalised.
        training: the section `training`, plain.
        shared: the section `losses`, options by loss.

    Raises:
        ValueError: a method that is not there, builds on itself, or whose stages do not fit its epochs.
    """
    budget = training["epochs"]
    defaults = {key: value for key, value in training.items() if key != "epochs"}
    listed = _list_stages(name, methods, ())
    stages = [merge(defaults, {key: one for key, one in stage.items() if _is_said(key, one)}) for stage in listed]
    for stage, epochs in zip(stages, _share_epochs(stages, budget), strict=True):
        stage["epochs"] = epochs
        losses = stage.get("losses")
        if isinstance(losses, dict):
            kept = drop_taken_back(losses)
            stage["losses"] = {
                loss: {**shared.get(loss, {}), **use} if isinstance(use, dict) else use
                for loss, use in kept.items()
            }
    return stages


def _is_said(key: str, value: Any) -> bool:
    """Return whether an option of a stage is said; null goes back to `training`'s optimizer."""
    return not (key == "optimizer" and value is None)


def _list_stages(name: str, methods: Mapping[str, Any], above: tuple[str, ...]) -> list[Values]:
    if name in above:
        raise ValueError(f"it builds on itself: {' -> '.join([*above, name])}")
    method = methods[name] if name in methods else _load_named(name, methods)
    if not isinstance(method, dict):
        raise ValueError(f"{method!r} is no method: give stages, or what differs from a method")
    own = {key: value for key, value in method.items() if STAGE.fullmatch(key)}
    common = {key: value for key, value in method.items() if key not in own and key not in ("base", "twin_of")}
    if "twin_of" in method:
        if method.get("base") is not None or own:
            raise ValueError("twin_of gives its one stage, leave out base and stage1, stage2, ...")
        stages = [_join(_list_stages(str(method["twin_of"]), methods, (*above, name)))]
    elif method.get("base") is not None:
        stages = _list_stages(str(method["base"]), methods, (*above, name))
    elif own:
        stages = []
    else:
        hint = nearest(name, list_shipped()) or f": {', '.join(list_shipped())}"
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
    known = {**methods, **dict.fromkeys(list_shipped())}
    hint = nearest(name, known) or f": {', '.join(known)}"
    raise ValueError(f"there is no method {name}{hint}")


def _join(stages: list[Values]) -> Values:
    """Return one stage that trains everything by the losses of all."""
    losses: Values = {}
    for stage in stages:
        losses |= stage.get("losses", {})
    images = {key: value for key, value in stages[-1].items() if key in ("upweight_errors_of", "error_weight")}
    return {**images, "train": "all", "losses": losses}


def _share_epochs(stages: list[Values], budget: int) -> list[Any]:
    """Return the epochs of each stage: as given, a share of the budget, or what the others leave of it."""
    given = [stage.get("epochs") for stage in stages]
    shares = [epochs for epochs in given if isinstance(epochs, float) and 0 < epochs < 1]
    counts = [max(1, round(budget * epochs)) if epochs in shares else _as_count(epochs) for epochs in given]
    left = budget - sum(count for count in counts if isinstance(count, int))
    waiting = counts.count(None)
    if waiting > 1:
        raise ValueError("more than one stage has no epochs: say those of all but one")
    if sum(shares) > 1:
        raise ValueError(f"its stages' shares of training.epochs={budget} are more than the whole: give less")
    if waiting and left < 1:
        raise ValueError(
            f"stage{counts.index(None) + 1} has no epochs, and the other stages leave none of "
            f"training.epochs={budget}: say its epochs, or give the others fewer"
        )
    return [left if count is None else count for count in counts]


def _as_count(epochs: Any) -> Any:
    return int(epochs) if isinstance(epochs, float) and epochs.is_integer() else epochs
