"""Checks of a user's own network on real images, before it is trained."""

from __future__ import annotations

import torch

from errors import UserError
from settings.networks import Network
from training.experiment import Experiment

PROBED = 8  # images


@torch.no_grad()
def check_outputs(experiment: Experiment, network: Network, title: str) -> None:
    """Check that a network answers each image alike, alone and in a batch, with logits.

    Args:
        experiment: gives the first training images.
        network: the config's section.
        title: teacher or student.

    Raises:
        UserError: the network answers otherwise.
    """
    images = experiment.data.train
    places = torch.arange(min(PROBED, len(images)), device=images.device)
    batch, model = images.load_normalised(places).cpu(), experiment.build(network, pretrained=False).eval()
    first, second, alone = model(batch), model(batch), model(batch[:1])
    tolerance = 1e-3 * max(1e-6, first.abs().max().item())
    where = f"{title}.arch {network.arch}"
    if not torch.isfinite(first).all():
        raise UserError(f"{where}: it gives NaN or infinity for the first images: check its initial weights")
    if (first - second).abs().max() > tolerance:
        raise UserError(
            f"{where}: in evaluation mode it answers the same images differently each time: draw only while "
            "self.training, as F.dropout(x, training=self.training) does"
        )
    if (first[:1] - alone).abs().max() > tolerance:
        raise UserError(
            f"{where}: in evaluation mode its answer to an image depends on the others of the batch: normalise by "
            "running statistics, as nn.BatchNorm2d does"
        )
    if (first >= 0).all() and torch.allclose(first.sum(dim=1), torch.ones(len(first)), atol=1e-4):
        raise UserError(f"{where}: it gives probabilities where logits are wanted: remove its softmax")
