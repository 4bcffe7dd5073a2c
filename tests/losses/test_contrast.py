"""Of losses/contrast.py and losses/bank.py, against vectors gathered one by one and against `losses.crd`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.reference import list_drawn_samples
from losses import crd
from losses.bank import BLOCK, LossAgainstBank, MemoryBank, Windows
from losses.contrast import BankContrast
from losses.negatives import NegativeSampler
from losses.objectives import BinaryNCE, InfoNCE
from tests.losses.batches import normalise_rows

N, B, K, D, CLASSES = 60, 12, 24, 16, 5
LABELS = torch.arange(N) % CLASSES
MODES, OBJECTIVES = ("exact", "relax", "instance"), ("nce", "infonce")


def make(
    seed: int = 0, mode: str = "exact", count: int = K, shared: bool = False, momentum: float = 0.5
) -> BankContrast:
    torch.manual_seed(seed)
    return BankContrast(NegativeSampler(LABELS, count, mode, shared), D, temperature=0.1, momentum=momentum)


def draw_projections(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors (B, D) of both networks that resemble each other, and the indices (B,) of a batch."""
    source = torch.Generator().manual_seed(seed)
    shared = torch.randn(B, D, generator=source)
    student, teacher = (
        normalise_rows(shared + 0.3 * torch.randn(B, D, generator=source)).to(dtype) for _ in range(2)
    )
    return student, teacher, torch.randperm(N, generator=source)[:B]


def order_by_sample(sampler: NegativeSampler, bank: MemoryBank) -> Tensor:
    """A bank's entries in the order of the samples, float64."""
    return bank.features[sampler.position].double()


def compute_gathered(anchors: Tensor, bank: Tensor, drawn: Tensor, objective: str, log_z: Tensor) -> Tensor:
    """The loss as the paper writes it, of gathered vectors (B, K + 1, D)."""
    positives, negatives = bank[drawn[:, 0]], bank[drawn[:, 1:]]
    if objective == "nce":
        return crd.compute_nce(anchors, positives, negatives, log_z, len(bank))
    return crd.compute_infonce(anchors, positives, negatives)


@pytest.fixture(params=[7, 2048], ids=["many_blocks", "one_block"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that are multiplied at once."""
    monkeypatch.setitem(BLOCK, "cpu", request.param)


def compare_with_gathered(contrast: BankContrast, objective: str) -> None:
    """Four steps in float64: losses and gradients to 1e-10, then banks and Z."""
    sampler, tau = contrast.sampler, contrast.temperature
    contrast.double()
    banks = [order_by_sample(sampler, bank) for bank in (contrast.student, contrast.teacher)]
    log_z = torch.zeros(2, dtype=torch.float64)
    for step in range(4):  # from the second on with updated banks and the first batch's Z
        student, teacher, indices = draw_projections(step, torch.float64)
        draw = sampler.draw(indices)
        drawn = list_drawn_samples(sampler, draw)
        pairs = [(student.clone().requires_grad_(), teacher.clone().requires_grad_()) for _ in range(2)]
        actual = contrast(*pairs[0], indices, draw, objective)
        if step == 0 and objective == "nce":
            for side, (anchors, bank) in enumerate([(student, banks[1]), (teacher, banks[0])]):
                p = torch.exp((anchors[:, None] * bank[drawn]).sum(dim=2) / tau)  # (B, K + 1)
                log_z[side] = (N * p.mean()).log()
        expected = compute_gathered(pairs[1][0] / tau, banks[1], drawn, objective, log_z[0])
        expected = expected + compute_gathered(pairs[1][1] / tau, banks[0], drawn, objective, log_z[1])
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)
        found, wanted = torch.autograd.grad(actual, pairs[0]), torch.autograd.grad(expected, pairs[1])
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        for bank, new in zip(banks, (student, teacher), strict=True):
            for row, index in enumerate(indices.tolist()):
                bank[index] = normalise_rows(0.7 * bank[index] + 0.3 * new[row])
        contrast.rearrange(sampler.reshuffle())  # which the gathered form knows nothing of
    torch.testing.assert_close(order_by_sample(sampler, contrast.student), banks[0])
    torch.testing.assert_close(order_by_sample(sampler, contrast.teacher), banks[1])
    torch.testing.assert_close(contrast.log_z, log_z)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("count", [1, K, 3 * N])  # fewer than a block, several, and windows that go round
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bank_equals_gathered_vectors(objective: str, mode: str, count: int) -> None:
    compare_with_gathered(make(mode=mode, count=count, momentum=0.7), objective)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shared_negatives_equal_gathered_ones(objective: str) -> None:
    compare_with_gathered(make(shared=True, momentum=0.7), objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_agree_with_differences(objective: str) -> None:
    torch.manual_seed(0)
    anchors = normalise_rows(torch.randn(3, 4, dtype=torch.float64)).requires_grad_()
    bank = normalise_rows(torch.randn(8, 4, dtype=torch.float64))
    draw = NegativeSampler(torch.arange(8) % 4, 8, "relax").draw(torch.arange(3))  # 6 others: with repeats

    def compute(anchors: Tensor) -> Tensor:
        new = InfoNCE() if objective == "infonce" else BinaryNCE(torch.tensor(2.0), 8, 8)
        return LossAgainstBank.apply(anchors, bank, Windows(draw, len(bank), block=3), new)

    assert torch.autograd.gradcheck(compute, (anchors,))


class Squares:
    """Weighs an entry by its score, and keeps Σ score of each row."""

    def reset(self, rows: int, block: Tensor) -> None:
        self.sums = block.new_zeros(rows)

    def update(self, scores: Tensor, rows: slice) -> None:
        scores.nan_to_num_(neginf=0)
        self.sums[rows] += scores.sum(dim=1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("B", "N", "K"), [(B, N, K), (3, 600, 4), (1, N, K), (N, N, 2), (5, N, 3 * N)])
@pytest.mark.parametrize(("block", "masked"), [(1, False), (7, False), (7, True), (64, False), (64, True)])
def test_windows_equal_gathered_products(block: int, masked: bool, B: int, N: int, K: int, shared: bool) -> None:
    """Whatever the size of a block, however often a window runs round the bank, and however far apart."""
    torch.manual_seed(block)
    sampler = NegativeSampler(torch.arange(N) % CLASSES, K, "exact", shared)
    bank, anchors = torch.randn(N, D), torch.randn(B, D)
    for _ in range(10):
        draw, squares = sampler.draw(torch.randperm(N)[:B]), Squares()
        entries = bank[sampler.position[list_drawn_samples(sampler, draw)[:, 1:]]]  # (B, K, D)
        scores = (entries * anchors[:, None]).sum(dim=2)
        pulls = Windows(draw, N, block, masked).apply(squares, anchors, bank).sum(dim=0)
        torch.testing.assert_close(squares.sums.view(-1, B).sum(dim=0), scores.sum(dim=1), rtol=1e-4, atol=1e-3)
        expected = (scores[..., None] * entries).sum(dim=1)
        torch.testing.assert_close(pulls, expected, rtol=1e-4, atol=1e-3)


def test_each_process_has_its_anchors_windows() -> None:
    torch.manual_seed(0)
    sampler = NegativeSampler(LABELS, K, "exact")
    bank, anchors = torch.randn(N, D), torch.randn(B, D)
    for _ in range(10):
        draw, found = sampler.draw(torch.randperm(N)[:B]), torch.empty(B, D)
        for rank in range(5):
            windows = Windows(draw.select_part(rank, 5), N, block=7)
            found[rank::5] = windows.apply(Squares(), anchors[rank::5], bank).sum(dim=0)
        torch.testing.assert_close(found, Windows(draw, N, block=7).apply(Squares(), anchors, bank).sum(dim=0))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_float16_autocast_loses_no_slope_of_negatives(objective: str) -> None:
    """One of K negatives pulls with about 1 / (B K), less than float16 can hold: there all is as in float32."""
    contrast = make()
    _, _, indices = draw_projections(0)
    windows = contrast.teacher.make_windows(contrast.sampler.draw(indices))
    start = torch.randn(len(indices), D)
    found = []
    for lower in (False, True):
        anchors = start.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=lower):
            value = contrast.teacher.compute_loss(
                anchors, windows, contrast._make_objective(objective, contrast.log_z[0])
            )
        value.backward()
        found.append((value.detach(), anchors.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_bank_update_by_hand() -> None:
    bank = MemoryBank(3, 2, momentum=0.75)
    bank.features.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    bank.update(torch.tensor([2, 0]), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    length = math.hypot(0.75, 0.25)
    expected = torch.tensor([[0.75 / length, 0.25 / length], [0.0, 1.0], [0.6, 0.8]])
    torch.testing.assert_close(bank.features, expected)


@pytest.mark.parametrize(("temperature", "momentum"), [(0.0, 0.5), (-0.1, 0.5), (0.1, 1.0), (0.1, -0.1)])
def test_options_out_of_range_are_refused(temperature: float, momentum: float) -> None:
    with pytest.raises(ValueError, match="need temperature > 0 and 0 <= momentum < 1"):
        BankContrast(NegativeSampler(LABELS, K, "exact"), D, temperature, momentum)
