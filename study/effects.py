"""Decoupling taken apart: what two methods of a study differ in, where that is one part of it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from settings.schema import Config
from settings.stages import Stage

SEPARATE = "features learnt without labels or classifier"
FROZEN = "features kept frozen"
IMAGES = "classifier from other images"
OF_IMAGES = {"images": "train", "upweight_errors_of": None, "error_weight": Stage().error_weight}
OF_PART = {"train": "head", "feature_lr": None, "optimizer": None, "batch_size": None}  # rates may differ with it


@dataclass(frozen=True)
class Effect:
    """Two methods that differ in one part of decoupling; the first has it."""

    name: str
    first: str
    second: str


def list_effects(config: Config) -> list[Effect]:
    """Return the pairs of methods whose comparison shows one effect of a method with a frozen head.

    The head on features of stage 1 is compared with the same head on features of all losses at once
    (`twin_of` with `refit: head`), with training the features further, and with the same head from other images.
    """
    methods = {name: stages for name, stages in config.stages.items() if len(stages) > 1}
    found = []
    for name, stages in methods.items():
        if stages[-1].train != "head" or not all(stage.train == "features" for stage in stages[:-1]):
            continue
        for other, theirs in methods.items():
            effect = _find_effect(stages, theirs)
            if effect is not None:
                first, second = (other, name) if effect == IMAGES else (name, other)
                found.append(Effect(effect, first, second))
    return found


def _find_effect(head: Sequence[Stage], other: Sequence[Stage]) -> str | None:
    """Return what a method with a frozen head differs in from another, None where in more than one part."""
    last, theirs = head[-1], other[-1]
    if head[:-1] == other[:-1]:
        if theirs.train in ("last_block", "all") and _are_equal(last, theirs, OF_PART):
            return FROZEN
        has_other_images = last != theirs and last == last.model_copy(update=OF_IMAGES)
        return IMAGES if has_other_images and _are_equal(last, theirs, OF_IMAGES) else None
    joined = {name for stage in head for name in stage.losses}
    is_twin = len(other) == 2 and other[0].train == "all" and set(other[0].losses) == joined
    return SEPARATE if is_twin and _are_equal(last, theirs, {"reset_head": True}) else None


def _are_equal(one: Stage, other: Stage, options: Mapping[str, object]) -> bool:
    """Return whether two stages differ in no other option than these."""
    return one.model_copy(update=dict(options)) == other.model_copy(update=dict(options))
