"""Contact sheets: training images with planted cues on one picture.

Letters: C classes, K cues, S side in pixels, H and W of the sheet.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from dataset.cues.shortcut import draw_cues
from dataset.prepare import TrainingData
from dataset.views.augment import apply_view, draw_view
from files import write_atomically

CLASSES = 10  # rows of training images at most
CUES = 10  # cues shown at most
COLUMNS = CUES + 1
SIDE = 64  # smaller images are enlarged to about this many pixels


def draw_contact_sheet(data: TrainingData) -> Tensor:
    """Draw examples on one uint8 picture (3, H, W).

    A row for each class, up to 10: its first training images as they are trained on: cropped, mirrored, stamped.
    The last row: a test image without a cue, then under each cue, up to 10. Where the images have cues of their
    own it holds a test image of each cue instead.
    """
    rows = [_list_training_images(data, label) for label in range(min(CLASSES, data.num_classes))]
    rows.append(_list_test_images(data))
    scale = max(1, SIDE // rows[0].shape[-1])
    filled = torch.cat([F.pad(row, [0, 0, 0, 0, 0, 0, 0, COLUMNS - len(row)]) for row in rows])  # black at the end
    tiles = filled.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid: Tensor = make_grid(tiles, nrow=COLUMNS, padding=max(2, scale), pad_value=96)
    return grid


def write_contact_sheet(data: TrainingData, path: Path) -> None:
    """Write the contact sheet as a PNG file."""
    image = Image.fromarray(draw_contact_sheet(data).permute(1, 2, 0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: image.save(file, format="PNG"))


def _list_training_images(data: TrainingData, label: int) -> Tensor:
    images, settings = data.train, data.settings
    indices = (images.labels == label).nonzero()[:COLUMNS, 0].cpu()
    view = draw_view(settings.seed, 0, len(images), settings.crop, settings.flip)
    pixels = apply_view(images.load_raw(indices), indices, view)
    return (pixels if images.cues is None else images.cues.draw(pixels, indices)).cpu()


def _list_test_images(data: TrainingData) -> Tensor:
    images = data.test
    cues = torch.linspace(0, data.cue_count - 1, min(CUES, data.cue_count)).round().long()
    if images.cues is not None:
        found = [(images.cues.image_cues == cue).nonzero()[:1, 0] for cue in cues.tolist()]
        return images.load_raw(torch.cat(found)).cpu()
    first = torch.zeros(1 + len(cues), dtype=torch.int64)
    pixels = images.load_raw(first).cpu()
    shown = torch.cat([torch.tensor([-1]), cues])
    return pixels if data.shortcut.cue == "none" else draw_cues(data.shortcut.cue, pixels, shown, first)
