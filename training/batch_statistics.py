"""Whether a training's batches give batch norm what it needs: a variance each, and enough of them."""

from __future__ import annotations

import torch
from torch import nn

from errors import UserError, warn
from models.norms import LEFT, USUAL, share_left
from training import distributed


@torch.no_grad()
def check_batch_statistics(model: nn.Module, key: str, batch_size: int, image_size: int) -> None:
    """Raise `UserError` for batches that leave a process without images, or batch norm without a variance.

    model: on the meta device.
    """
    mine, enough = batch_size // distributed.world_size(), 2 * distributed.world_size()
    if mine > 1:
        return
    images = torch.empty(max(mine, 1), 3, image_size, image_size, device="meta")
    try:
        model.train()(images)
    except ValueError:  # of batch norm, where a channel has one value alone
        mine = 0
    finally:
        model.eval()
    if mine == 0:
        raise UserError(
            f"{key}={batch_size}: batch statistics need more than one value a channel, use {enough} or more"
        )


def tell_of_first_statistics(model: nn.Module, side: str, section: str, batches: int) -> None:
    """Warn where a training of so many batches from random weights ends before its running statistics are its own.

    side: the config's section of the network.
    section: the config's section of the training.
    """
    left = share_left(model, batches)
    if left > LEFT:
        warn(
            f"{side}.arch: its batch norm follows slowly, {left:.1%} of what tests normalise by are its first "
            f"values still after {batches:,} batches ({section}): set {side}.norm_momentum={USUAL:g}"
        )
