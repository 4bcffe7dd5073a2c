"""The taps that losses read of one network, and its outputs as a `View` of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from losses.loss import Loss, View
from models.layout import Layout
from models.taps import Outputs


@dataclass(frozen=True)
class Reading:
    """Places of the taps that losses read of a network."""

    pooled: Mapping[str, str]  # place by tap
    maps: Mapping[str, str]

    @property
    def places(self) -> list[str]:
        """Each place once."""
        return list(dict.fromkeys([*self.pooled.values(), *self.maps.values()]))

    def add_pooled(self, tap: str, place: str) -> Reading:
        """Return the same with another tap read pooled."""
        return Reading({**self.pooled, tap: place}, self.maps)

    def make_view(self, outputs: Outputs, places: Sequence[str], classifier: nn.Module | None = None) -> View:
        """Return outputs as losses see them. `places`: of the outputs' taps."""
        by_place: dict[str, Tensor] = dict(zip(places, outputs.taps, strict=True))
        pooled, maps = ({tap: by_place[one] for tap, one in taps.items()} for taps in (self.pooled, self.maps))
        return View(outputs.logits, pooled, maps, classifier)


def find_reading(layout: Layout, losses: Iterable[Loss], pooled: bool = False) -> Reading:
    """Return what losses read of a network.

    Args:
        layout: of the network.
        losses: with their options, set up or not.
        pooled: take pooled features where losses read maps, too.

    Raises:
        UserError: a tap that the network does not have.
    """
    vectors: dict[str, str] = {}
    maps: dict[str, str] = {}
    for loss in losses:
        as_map = loss.needs_maps and not pooled
        for tap in loss.used_taps:
            (maps if as_map else vectors)[tap] = layout.find_place(tap, as_map)
    return Reading(vectors, maps)


def find_shapes(layout: Layout, losses: Iterable[Loss]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tap that losses read: (D,), or (D, H, W) for maps."""
    reading = find_reading(layout, losses)
    return {tap: layout.find_shape(place) for tap, place in {**reading.pooled, **reading.maps}.items()}
