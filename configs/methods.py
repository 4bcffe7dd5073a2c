"""Methods: from what a config says of them to stages with everything said.

A method is a list of stages. In a config it is one of
- nothing, for a shipped method of that name (`configs/methods/NAME.yaml`), `false` to leave out one of the base file's;
- a list of stages, each a section of what differs from `training`;
- a section with what differs: `stage1`, `stage2`, ... for one stage, anything else for every stage. It builds on the
  shipped method of that name, or on another method with `base: NAME`;
- `twin_of: NAME` for one stage that trains everything by all losses of another method's stages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from configs.merge import merge
from configs.plain_yaml import parse, read_text

SHIPPED = Path(__file__).with_name("methods")
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
    """
    if isinstance(values, list) and all(isinstance(name, str) for name in values):
        return {name: below[name] if name in below else normalise_method(name, None) for name in values}
    if not isinstance(values, dict):
        return values
    found = dict(below)
    for name, value in values.items():
        if value is False:
            found.pop(name, None)
        elif isinstance(value, dict) and isinstance(found.get(name), dict):
            own = _spread(value)
            if {"base", "twin_of"} & own.keys():
                found[name] = own
            else:
                found[name] = merge(found[name], own)
        else:
            found[name] = normalise_method(name, value)
    return found


def normalise_method(name: str, value: Any) -> Any:
    """Return a method as a section of stages; what is not of that form stays as it is."""
    if isinstance(value, list):
        return {f"stage{number}": _spread_stage(stage) for number, stage in enumerate(value, start=1)}
    if value is None:
        value = {}
    if not isinstance(value, dict):
        return value
    value = _spread(value)
    if {"base", "twin_of"} & value.keys():
        return value
    if (SHIPPED / f"{name}.yaml").is_file() and re.fullmatch(r"\w+", name):
        return merge(load_shipped(name), value)
    return value


def _spread(method: Mapping[str, Any]) -> Values:
    """Return a method's section with weights of losses written as sections."""
    own = {key: _spread_stage(value) if STAGE.fullmatch(key) else value for key, value in method.items()}
    spread: Values = _spread_stage(own)
    return spread


def _spread_stage(stage: Any) -> Any:
    losses = stage.get("losses") if isinstance(stage, dict) else None
    if not isinstance(losses, dict):
        return stage
    spread = {
        name: use if isinstance(use, dict) else {"weight": 1.0 if use is None else use}
        for name, use in losses.items()
    }
    return {**stage, "losses": spread}


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
    stages = [merge(defaults, stage) for stage in _list_stages(name, methods, ())]
    for stage, epochs in zip(stages, _share_epochs(stages, budget), strict=True):
        stage["epochs"] = epochs
        losses = stage.get("losses", {})
        if isinstance(losses, dict):
            stage["losses"] = {
                loss: merge(shared.get(loss, {}), use) if isinstance(use, dict) else use
                for loss, use in losses.items()
                if not (isinstance(use, dict) and use.get("weight") is False)  # taken back
            }
    return stages


def _list_stages(name: str, methods: Mapping[str, Any], above: tuple[str, ...]) -> list[Values]:
    if name in above:
        raise ValueError(f"it builds on itself: {' -> '.join([*above, name])}")
    method = methods[name] if name in methods else _load_named(name, methods)
    if not isinstance(method, dict):
        raise ValueError(f"{method!r} is no method: give stages, or what differs from a method")
    own = {key: value for key, value in method.items() if STAGE.fullmatch(key)}
    common = {key: value for key, value in method.items() if key not in own and key not in ("base", "twin_of")}
    if "twin_of" in method:
        if "base" in method or own:
            raise ValueError("twin_of gives its one stage, leave out base and stage1, stage2, ...")
        stages = [_join(_list_stages(str(method["twin_of"]), methods, (*above, name)))]
    elif "base" in method:
        stages = _list_stages(str(method["base"]), methods, (*above, name))
    else:
        stages = [] if own else [{}]
        if not own and not common:
            raise ValueError(f"it has no stages, and none is shipped by this name: {', '.join(list_shipped())}")
    for key in sorted(own):
        number, stage = int(key.removeprefix("stage")), own[key]
        if not isinstance(stage, dict):
            raise ValueError(f"{key} is {stage!r}, give a section such as {{losses: {{ce: 1}}}}")
        if number > len(stages) + 1:
            raise ValueError(f"{key} comes without stage{number - 1}")
        stages[number - 1 : number] = [merge(stages[number - 1] if number <= len(stages) else {}, stage)]
    return [merge(stage, common) for stage in stages]


def _load_named(name: str, methods: Mapping[str, Any]) -> Values:
    if name in list_shipped():
        return load_shipped(name)
    raise ValueError(f"there is no method {name}: {', '.join({**methods, **dict.fromkeys(list_shipped())})}")


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
    counts = [
        max(1, round(budget * epochs)) if isinstance(epochs, float) and 0 < epochs < 1 else epochs
        for epochs in given
    ]
    left = budget - sum(count for count in counts if isinstance(count, int))
    waiting = counts.count(None)
    if waiting > 1:
        raise ValueError("more than one stage has no epochs: say those of all but one")
    if waiting and left < 1:
        raise ValueError(f"its stages leave nothing of training.epochs={budget}: give them fewer epochs")
    return [left if count is None else count for count in counts]
