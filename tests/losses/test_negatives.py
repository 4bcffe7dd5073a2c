from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from benchmarks.reference import list_drawn_samples
from losses.negatives import NegativeSampler

CLASS_SIZES = st.lists(st.integers(1, 9), min_size=2, max_size=6)
UNEQUAL = torch.tensor([0] * 3 + [1] * 7 + [2] * 2)[torch.randperm(12, generator=torch.Generator().manual_seed(3))]


def shuffle_labels(sizes: list[int], seed: int) -> Tensor:
    labels = torch.repeat_interleave(10 * torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def draw(sampler: NegativeSampler, indices: Tensor) -> Tensor:
    """Samples (B, K + 1) of a draw from a new order."""
    sampler.reshuffle()
    return list_drawn_samples(sampler, sampler.draw(indices))


def find_candidates(labels: Tensor, anchor: int, mode: str) -> set[int]:
    """Samples that may be negatives of one."""
    return {i for i in range(len(labels)) if (i != anchor if mode == "instance" else labels[i] != labels[anchor])}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mode", ["exact", "relax", "instance"])
@settings(deadline=None, max_examples=40, derandomize=True)
@given(sizes=CLASS_SIZES, num_negatives=st.integers(1, 80), seed=st.integers(0, 1000))
def test_draws_are_allowed_and_even(
    mode: str, shared: bool, sizes: list[int], num_negatives: int, seed: int
) -> None:
    labels = shuffle_labels(sizes, seed)
    torch.manual_seed(seed)
    drawn = draw(NegativeSampler(labels, num_negatives, mode, shared), torch.arange(len(labels)))
    assert drawn.shape == (len(labels), num_negatives + 1)
    for anchor, row in enumerate(drawn.tolist()):
        allowed = find_candidates(labels, anchor, mode)
        counts = {index: row[1:].count(index) for index in set(row[1:])}
        assert counts.keys() <= allowed
        assert max(counts.values()) <= -(-num_negatives // len(allowed))  # 1 while K <= M: no repeats
        if num_negatives >= len(allowed):
            assert counts.keys() == allowed
            assert min(counts.values()) >= num_negatives // len(allowed)
        assert labels[row[0]] == labels[anchor] if mode == "relax" else row[0] == anchor


@pytest.mark.parametrize("labels", [UNEQUAL, torch.arange(12) % 3], ids=["unequal", "equal"])
@pytest.mark.parametrize("mode", ["exact", "relax", "instance"])
def test_every_candidate_is_equally_likely(mode: str, labels: Tensor) -> None:
    torch.manual_seed(0)
    sampler = NegativeSampler(labels, 1, mode)
    drawn = torch.stack([draw(sampler, torch.arange(12)) for _ in range(3000)])  # one an order: independent
    for anchor in range(12):
        counts = drawn[:, anchor, 1].bincount(minlength=12)
        assert chisquare(counts[sorted(find_candidates(labels, anchor, mode))]).pvalue > 1e-4
        if mode == "relax":
            counts = drawn[:, anchor, 0].bincount(minlength=12)
            assert chisquare(counts[labels == labels[anchor]]).pvalue > 1e-4


def test_windows_of_several_negatives_are_uniform_too() -> None:
    torch.manual_seed(0)
    sampler = NegativeSampler(UNEQUAL, 2, "exact")
    anchor = int((UNEQUAL == 1).nonzero()[0])  # 7 of its class, 5 candidates, 20 ordered pairs
    drawn = torch.cat([draw(sampler, torch.tensor([anchor])) for _ in range(6000)])
    pairs = (12 * drawn[:, 1] + drawn[:, 2]).unique(return_counts=True)[1]
    assert len(pairs) == 20
    assert chisquare(pairs).pvalue > 1e-4


def test_the_draw_is_a_function_of_torchs_seed() -> None:
    sampler = NegativeSampler(UNEQUAL, 4, "relax")
    draws = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        draws.append(draw(sampler, torch.arange(12)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_loaded_order_draws_the_same() -> None:
    sampler, other = (NegativeSampler(UNEQUAL, 4, "exact") for _ in range(2))
    other.load_state_dict(sampler.state_dict())
    draws = []
    for each in (sampler, other):
        torch.manual_seed(1)
        draws.append(list_drawn_samples(each, each.draw(torch.arange(12))))
    assert torch.equal(draws[0], draws[1])


def test_shared_negatives_differ_by_own_class_alone() -> None:
    labels = torch.arange(400) % 4
    torch.manual_seed(0)
    drawn = draw(NegativeSampler(labels, 100, "exact", shared=True), torch.arange(4))[:, 1:]
    assert len(drawn.unique()) < 170  # about 134 in a row hold 100 of other classes, whatever the class
    apart = draw(NegativeSampler(labels, 100, "exact"), torch.arange(4))[:, 1:]
    assert len(apart.unique()) > 300


@pytest.mark.parametrize(
    ("labels", "mode"), [(torch.zeros(9), "exact"), (torch.zeros(9), "relax"), (torch.zeros(1), "instance")]
)
def test_no_possible_negative_is_refused(labels: Tensor, mode: str) -> None:
    with pytest.raises(ValueError, match="no negatives"):
        NegativeSampler(labels, 4, mode)
