"""When a phase may end before its epochs are over, and what that needs."""

from __future__ import annotations

from typing import Literal, Protocol

from configs.images import Data, Shortcut
from configs.section import Count, NonNegative, Section, about

Until = Literal["epochs", "plateau"]


class Stopping(Section):
    """Of every section that trains, but for stage 1, whose one measure is the cosine."""

    until: Until = about("epochs", "plateau ends the phase when validation images show no improvement any more")
    watch: Literal["val_top1", "val_loss"] = about(
        "val_top1", "what plateau looks at; the epoch that is kept is the best by val_top1 either way"
    )
    patience: Count = about(5, "epochs without improvement before plateau ends the phase")
    min_delta: NonNegative = about(0.0, "smallest improvement of `watch` that counts; any does with 0")


class Ends(Protocol):
    """A section that trains."""

    @property
    def until(self) -> Until: ...


def check_stopping(prefix: str, data: Data, shortcut: Shortcut, *sections: Ends) -> None:
    """Raise `ValueError` where a plateau would be of test images, or of none.

    prefix: of the sections' keys in the config.
    """
    for section in sections:
        key = f"{prefix}{type(section).__name__.lower()}.until: plateau"
        if section.until == "plateau" and data.val_fraction == 0:
            raise ValueError(f"{key} needs data.val_fraction > 0, test data decides nothing")
        if section.until == "plateau" and shortcut.cue != "none":
            raise ValueError(f"{key} has no validation images where a cue is planted: use epochs")
