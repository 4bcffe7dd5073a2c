"""The published CRD step, written from the equations of Tian et al. (2020), and the usual way to load its images.

The step gathers the vectors of positive and negatives, (B, K + 1, D) twice, multiplies them one anchor at a time,
and draws the negatives of each sample with numpy, as a data set would. Images go one by one through Pillow and
torchvision's transforms in the processes of a `DataLoader`.

Letters: B batch, N training samples, K negatives an anchor, D dimension of a projection.
"""

from __future__ import annotations

import os

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dataset.files.decoded_cache import Images
from losses.negatives import Draw, NegativeSampler

WORKERS = 2


def draw(
    labels: NDArray[np.int64], indices: NDArray[np.int64], num_negatives: int, rng: np.random.Generator
) -> Tensor:
    """Draw (B, K + 1) positions: each sample, then K of other classes without replacement, one by one."""
    rows = []
    for index in indices:
        others = np.flatnonzero(labels != labels[index])
        rows.append(np.concatenate([[index], rng.choice(others, num_negatives, replace=False)]))
    return torch.from_numpy(np.stack(rows))


def similarities(anchors: Tensor, bank: Tensor, drawn: Tensor, temperature: float) -> Tensor:
    """Return (B, K + 1) inner products over gathered vectors, divided by the temperature."""
    vectors = bank.index_select(0, drawn.reshape(-1)).view(*drawn.shape, -1)  # (B, K + 1, D)
    return torch.bmm(vectors, anchors[:, :, None]).squeeze(2) / temperature


def nce(exponentials: Tensor, z: float, num_samples: int) -> Tensor:
    """Return −log h(positive) − Σ log(1 − h(negative)), mean over anchors: h = p / (p + K/N), p = exp(.) / Z."""
    p = exponentials / z
    noise = (p.shape[1] - 1) / num_samples
    positive = (p[:, 0] / (p[:, 0] + noise)).log()
    negatives = (noise / (p[:, 1:] + noise)).log()
    return -(positive + negatives.sum(dim=1)).mean()


def step(
    student: Tensor, teacher: Tensor, banks: tuple[Tensor, Tensor], indices: Tensor, drawn: Tensor, z: float
) -> Tensor:
    """Return the loss of both directions for unit features (B, D), and update both banks (N, D)."""
    student_bank, teacher_bank = banks
    num_samples = len(student_bank)
    loss = nce(similarities(student, teacher_bank, drawn, 0.1).exp(), z, num_samples)
    loss = loss + nce(similarities(teacher, student_bank, drawn, 0.1).exp(), z, num_samples)
    with torch.no_grad():
        for bank, features in ((student_bank, student), (teacher_bank, teacher)):
            bank.index_copy_(0, indices, F.normalize(0.5 * bank[indices] + 0.5 * features, dim=1))
    return loss


Sample = tuple[Tensor, int, int, Tensor]  # image, label, position, draw


class PillowImages(Dataset[Sample]):
    """uint8 images as torchvision's data sets give them: image, label, position and, if K > 0, its draw (K + 1,).

    Args:
        pixels: (N, S, S, 3).
        labels: (N,).
        num_negatives: K, or 0 to draw none.
    """

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], num_negatives: int = 0) -> None:
        self.pixels, self.labels, self.num_negatives = pixels, labels, num_negatives
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(pixels.shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
            ]
        )

    @classmethod
    def of(cls, images: Images, num_negatives: int = 0) -> PillowImages:
        """Return this project's images in the layout of Pillow."""
        return cls(np.ascontiguousarray(images.pixels[:].transpose(0, 2, 3, 1)), images.labels, num_negatives)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int, Tensor]:
        image = self.transform(Image.fromarray(self.pixels[index]))
        drawn = torch.empty(0)
        if self.num_negatives:
            rng = np.random.default_rng()
            drawn = draw(self.labels, np.array([index]), self.num_negatives, rng)[0]
        return image, int(self.labels[index]), index, drawn


def workers(device: torch.device) -> int:
    """Return the number of processes that load images: one a core before a GPU."""
    return WORKERS if device.type == "cpu" else os.cpu_count() or WORKERS


def loader(images: PillowImages, batch_size: int, device: torch.device) -> DataLoader[Sample]:
    """Load shuffled whole batches, into memory that a GPU can read by itself where it is for one."""
    pinned = device.type == "cuda"
    return DataLoader(
        images, batch_size, shuffle=True, num_workers=workers(device), drop_last=True, pin_memory=pinned
    )


def drawn_samples(sampler: NegativeSampler, draw: Draw) -> Tensor:
    """Return a draw as positions (B, K + 1) in the training set, positives first, as the published form has it."""
    rows = torch.arange(len(draw.positives))[:, None]
    window = sampler.order[
        (draw.first + rows * draw.spacing + torch.arange(draw.length)) % len(sampler.order)
    ]  # (B, L)
    keep = torch.ones_like(window, dtype=torch.bool).scatter_(1, draw.left_out, False)
    negatives = window[keep].view(len(window), sampler.num_negatives)
    return torch.cat([sampler.order[draw.positives][:, None], negatives], dim=1)
