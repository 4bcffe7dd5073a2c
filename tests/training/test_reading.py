from __future__ import annotations

import pytest
import torch
from torch import Tensor

from errors import UserError
from losses.crd import CRD
from losses.kl import KL
from losses.loss import Loss, Samples, Taps, View
from losses.regression import Regression
from models.layout import Layout, infer_layout
from models.taps import TappedModel
from models.zoo import build_model
from training.reading import find_reading, find_shapes

SIDE = 16


class Maps(Loss):
    """A loss of maps, to be read beside pooled features."""

    needs_maps = True

    def __init__(self, taps: Taps) -> None:
        super().__init__()
        self.taps = taps

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        return student.maps["stage1"].mean()


@pytest.fixture(scope="module")
def layout() -> Layout:
    return infer_layout(build_model("resnet8", 4), SIDE)


def test_each_place_is_read_once_for_all_losses(layout: Layout) -> None:
    losses = [CRD(), Regression(taps={"last": 1, "features": 1, "stage9": 0}), KL()]
    reading = find_reading(layout, losses)
    assert reading.pooled == {"penultimate": "layer2.0", "last": "fc:input", "features": "fc:input"}
    assert reading.maps == {} and reading.places == ["layer2.0", "fc:input"]
    assert find_shapes(layout, losses) == {"penultimate": (32,), "last": (64,), "features": (64,)}
    assert find_reading(layout, [KL()]).places == []


def test_maps_are_read_beside_pooled_features(layout: Layout) -> None:
    losses = [Maps({"stage1": 1, "penultimate": 1}), CRD(taps={"penultimate": 1})]
    assert find_reading(layout, losses).places == ["layer2.0", "layer1:map", "layer2.0:map"]
    assert find_shapes(layout, losses) == {"stage1": (16, 16, 16), "penultimate": (32, 8, 8)}
    pooled = find_reading(layout, losses, pooled=True)
    assert pooled.maps == {} and set(pooled.places) == {"layer1", "layer2.0"}


def test_a_view_has_each_tap_under_its_name(layout: Layout) -> None:
    reading = find_reading(layout, [Maps({"stage1": 1}), CRD(taps={"last": 1, "features": 2})])
    model = build_model("resnet8", 4).eval()
    more = ["layer3", *reading.places]  # as a cache has them, which serves other stages too
    with torch.no_grad():
        outputs = TappedModel(model, more)(torch.randn(3, 3, SIDE, SIDE))
    view = reading.make_view(outputs, more, model.fc)
    assert torch.equal(view.logits, outputs.logits) and view.classifier is model.fc
    assert set(view.taps) == {"last", "features"} and torch.equal(view.taps["last"], view.taps["features"])
    assert view.maps["stage1"].shape == (3, 16, SIDE, SIDE)
    torch.testing.assert_close(model.fc(view.taps["last"]), view.logits)


def test_an_unknown_tap_is_named(layout: Layout) -> None:
    with pytest.raises(UserError, match="CifarResNet has no tap stage9, did you mean 'stage"):
        find_reading(layout, [CRD(taps={"stage9": 1})])
