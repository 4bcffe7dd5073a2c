"""The published CRD step, written from the equations of Tian et al. (2020), and the usual way to load its images.

The step gathers the vectors of positive and negatives, (B, K + 1, D) twice, multiplies them one anchor at a time,
and draws the negatives of each sample with numpy, as a data set would. Images go one by one through Pillow and
torchvision's transforms in the processes of a `DataLoader`.

Letters: B batch, N training samples, K negatives an anchor, D dimension of a projection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

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


def compute_similarities(anchors: Tensor, bank: Tensor, drawn: Tensor, temperature: float) -> Tensor:
    """Return (B, K + 1) inner products over gathered vectors, divided by the temperature."""
    vectors = bank.index_select(0, drawn.reshape(-1)).view(*drawn.shape, -1)  # (B, K + 1, D)
    return torch.bmm(vectors, anchors[:, :, None]).squeeze(2) / temperature


def compute_nce(exponentials: Tensor, z: float, num_samples: int) -> Tensor:
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
    loss = compute_nce(compute_similarities(student, teacher_bank, drawn, 0.1).exp(), z, num_samples)
    loss = loss + compute_nce(compute_similarities(teacher, student_bank, drawn, 0.1).exp(), z, num_samples)
    with torch.no_grad():
        for bank, features in ((student_bank, student), (teacher_bank, teacher)):
            bank.index_copy_(0, indices, F.normalize(0.5 * bank[indices] + 0.5 * features, dim=1))
    return loss


class PillowImages(Dataset[tuple[Tensor, int]]):
    """This project's uint8 images as torchvision's data sets give them: image and label."""

    def __init__(self, images: Images) -> None:
        self.pixels = np.ascontiguousarray(images.pixels[:].transpose(0, 2, 3, 1))  # (N, S, S, 3)
        self.labels = images.labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(self.pixels.shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def make_loader(
    images: Dataset[tuple[Tensor, int]], batch_size: int, device: torch.device
) -> DataLoader[tuple[Tensor, int]]:
    """Load shuffled whole batches with two processes; before a GPU with one a core, into pinned memory."""
    on_gpu = device.type == "cuda"
    workers = os.cpu_count() or WORKERS if on_gpu else WORKERS
    return DataLoader(images, batch_size, shuffle=True, num_workers=workers, drop_last=True, pin_memory=on_gpu)


def repeat(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of one epoch after another."""
    while True:
        yield from loader


def list_drawn_samples(sampler: NegativeSampler, draw: Draw) -> Tensor:
    """Return a draw as positions (B, K + 1) in the training set, positives first, as the published form has it."""
    rows = torch.arange(len(draw.positives))[:, None]
    window = sampler.order[
        (draw.first + rows * draw.spacing + torch.arange(draw.length)) % len(sampler.order)
    ]  # (B, L)
    keep = torch.ones_like(window, dtype=torch.bool).scatter_(1, draw.left_out, False)
    negatives = window[keep].view(len(window), sampler.num_negatives)
    return torch.cat([sampler.order[draw.positives][:, None], negatives], dim=1)
