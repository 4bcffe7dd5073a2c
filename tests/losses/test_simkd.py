from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.loss import View
from losses.simkd import TAP, SimKD
from models.connector import ConnectedStudent, ConnectorSizes, build_connector
from models.heads import find_classifier
from models.zoo import build_model
from tests.losses.batches import make_batch
from tests.losses.literals import MAP, draw


def see(maps: Tensor) -> View:
    return View(torch.empty(0), {}, {TAP: maps})


def test_loss_by_hand() -> None:
    samples = make_batch(0, count=3).samples
    assert SimKD()(see(MAP), see(MAP + 0.5), samples).item() == pytest.approx(0.25)


def test_larger_map_is_pooled() -> None:
    samples, large, small = (
        make_batch(0, count=2).samples,
        draw(2, 3, 4, 4).float(),
        draw(2, 3, 2, 2, seed=1).float(),
    )
    expected = F.mse_loss(F.avg_pool2d(large, 2), small)
    torch.testing.assert_close(SimKD()(see(small), see(large), samples), expected)
    torch.testing.assert_close(SimKD()(see(large), see(small), samples), expected)


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Convolve maps (B, C, S, S) by loops over places, with zeros around them."""
    images, _, side, _ = maps.shape
    reach = weight.shape[2] // 2
    padded = F.pad(maps, (reach,) * 4)
    out = torch.zeros(images, len(weight), side, side, dtype=maps.dtype)
    for row in range(side):
        for column in range(side):
            seen = padded[:, :, row : row + weight.shape[2], column : column + weight.shape[3]]
            out[:, :, row, column] = torch.einsum("bcij,ocij->bo", seen, weight)
    return out


def normalise(maps: Tensor) -> Tensor:
    mean, variance = maps.mean(dim=(0, 2, 3), keepdim=True), maps.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    return (maps - mean) / (variance + 1e-5).sqrt()


def test_connector_is_three_convolutions_with_batch_norm_and_relu() -> None:
    torch.manual_seed(0)
    connector = build_connector(ConnectorSizes("layer", (3, 4, 4), (6, 4, 4), 10)).double()
    convolutions = [module for module in connector if isinstance(module, nn.Conv2d)]
    assert [tuple(one.weight.shape) for one in convolutions] == [(3, 3, 1, 1), (3, 3, 3, 3), (6, 3, 1, 1)]
    assert all(one.bias is None for one in convolutions)
    maps = expected = draw(5, 3, 4, 4)
    for one in convolutions:
        expected = normalise(convolve(expected, one.weight)).relu()
    torch.testing.assert_close(connector(maps), expected)


def test_connector_averages_a_larger_map_first() -> None:
    connector = build_connector(ConnectorSizes("layer", (3, 8, 8), (6, 4, 4), 10)).eval()
    assert connector(torch.zeros(2, 3, 8, 8)).shape == (2, 6, 4, 4)
    assert (
        build_connector(ConnectorSizes("layer", (3, 2, 2), (6, 4, 4), 10)).eval()(torch.zeros(2, 3, 2, 2)).shape[2]
        == 2
    )


def test_student_answers_by_connector_and_classifier() -> None:
    torch.manual_seed(0)
    plain = build_model("resnet8", 10).eval()
    images = torch.randn(3, 3, 16, 16)
    maps = plain.layer3(plain.layer2(plain.layer1(F.relu(plain.bn1(plain.conv1(images))))))
    student = ConnectedStudent(plain, ConnectorSizes("layer3:map", (64, 4, 4), (32, 4, 4), 10)).eval()
    assert find_classifier(student) == ("classifier", student.classifier)
    assert not any(name.startswith("student.fc") for name in student.state_dict())
    expected = student.classifier(student.connector(maps).mean(dim=(2, 3)))
    torch.testing.assert_close(student(images), expected)
