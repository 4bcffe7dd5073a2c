"""Of losses/loss.py, and what holds for every loss: gradients, and what an order or a name may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from losses.loss import Loss, OneProcess, Samples, Sizes, View
from settings.loss_options import list_losses
from tests.losses.batches import CLASSES, LABELS, SIZES, Batch, make_batch

OTHERS = 15  # images of another class: so many negatives are all of them, whatever is drawn
BANK = {"dim": 2, "num_negatives": OTHERS, "temperature": 0.5}


class Case(NamedTuple):
    """A loss with options."""

    name: str
    loss: str
    options: dict[str, object]


CASES = [
    Case("ce", "ce", {}),
    Case("smoothed_ce", "ce", {"label_smoothing": 0.2}),
    Case("kl", "kl", {}),
    Case("kl_standardised", "kl", {"standardise": True}),
    Case("dkd", "dkd", {}),
    Case("dist", "dist", {}),
    Case("wttm", "wttm", {}),
    Case("crd_nce", "crd", BANK),
    Case("crd_infonce", "crd", BANK | {"objective": "infonce", "bank_init": "features"}),
    Case("crd_shared", "crd", BANK | {"negatives": "shared", "num_negatives": 7, "mode": "instance"}),
    Case("crd_batch", "crd", {"dim": 2, "objective": "infonce", "mode": "instance", "negatives": "batch"}),
    Case("regression", "regression", {}),
    Case("reuse", "reuse", {}),
    Case("rkd", "rkd", {}),
    Case("pkt", "pkt", {}),
    Case("sp", "sp", {}),
    Case("cc", "cc", {"dim": 2}),
    Case("itrd", "itrd", {}),
    Case("fitnet", "fitnet", {"taps": {"stage1": 1.0, "stage2": 1.0}}),
    Case("at", "at", {}),
    Case("srrl", "srrl", {}),
    Case("reviewkd", "reviewkd", {}),
    Case("simkd", "simkd", {}),
]
WEIGHTED = [case for case in CASES if list_losses()[case.loss](**case.options).uses_weights]
IN_ANY_ORDER = [case for case in CASES if case.loss != "cc"]  # whose pairs are neighbours in the batch
WHOLE_BATCH = ["crd_batch", "dist", "rkd", "pkt", "sp", "cc", "itrd"]  # compare the images of a batch
every_loss = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
every_weighted_loss = pytest.mark.parametrize("case", WEIGHTED, ids=[case.name for case in WEIGHTED])


def make(case: Case, sizes: Sizes = SIZES) -> Loss:
    """The loss, set up and prepared as a training would, float32."""
    loss = list_losses()[case.loss](**case.options)
    torch.manual_seed(0)
    loss.setup(sizes)
    return loss


def prepare(loss: Loss, batches: Sequence[Batch]) -> None:
    """Read the first pass where there is one, and train on one batch, which fills banks and sets Z."""
    for batch in batches:
        if loss.first_pass != "none":
            loss.prepare(*batch)
    if loss.first_pass != "none":
        loss.finish_prepare()
    loss.start_epoch()
    compute_terms(loss, batches[0])


def compute_terms(loss: Loss, batch: Batch) -> dict[str, Tensor]:
    """The terms of a loss on one draw."""
    torch.manual_seed(1)
    found = loss(*batch)
    return found if isinstance(found, dict) else {"": found}


def make_weighted_batch(loss: Loss, seed: int, count: int = 6) -> Batch:
    return make_batch(seed, count, weighted=loss.uses_weights)


def map_view(view: View, function: Callable[[Tensor], Tensor]) -> View:
    """Apply a function to all that a network gives."""
    taps, maps = ({tap: function(one) for tap, one in each.items()} for each in (view.taps, view.maps))
    return View(function(view.logits), taps, maps, view.classifier)


def read_taps(loss: Loss, view: View) -> dict[str, Tensor]:
    """Return what a loss reads of its taps: maps or pooled features."""
    found = view.maps if loss.needs_maps else view.taps
    return {tap: found[tap] for tap in loss.used_taps}


def with_taps(loss: Loss, view: View, taps: dict[str, Tensor]) -> View:
    """Return a view of nothing else than its logits, its classifier and these taps."""
    return View(view.logits, *(({}, taps) if loss.needs_maps else (taps, {})), view.classifier)


def convert_to_float64(batch: Batch) -> Batch:
    student, teacher = (map_view(view, Tensor.double) for view in batch[:2])
    weights = batch.samples.weights
    samples = replace(batch.samples, weights=None if weights is None else weights.double())
    return Batch(student, replace(teacher, classifier=deepcopy(teacher.classifier).double()), samples)


def reorder(batch: Batch, order: Tensor) -> Batch:
    """The same images in another order, or some of them."""
    views = [map_view(view, lambda one: one[order]) for view in batch[:2]]
    given = batch.samples
    weights = None if given.weights is None else given.weights[order]
    return Batch(*views, Samples(given.indices[order], given.labels[order], given.targets[order], weights))  # type: ignore[call-arg]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, term in found.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-5, atol=1e-6)


def test_every_loss_is_tried_here() -> None:
    assert {case.loss for case in CASES} == set(list_losses())
    assert {case.name for case in CASES if case not in WEIGHTED} == {
        "cc",
        "crd_infonce",
        "crd_nce",
        "crd_shared",
        "dist",
        "itrd",
        "pkt",
        "rkd",
        "sp",
    }


@every_loss
def test_gradients_agree_with_differences(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the student's logits and features and of the loss's own parameters, all in float64."""
    monkeypatch.setattr(
        Tensor, "float", Tensor.double
    )  # losses round to float32, which differences cannot see through
    loss = make(case).double()
    given = convert_to_float64(make_weighted_batch(loss, seed=0, count=3))
    prepare(loss, [convert_to_float64(make_batch(seed)) for seed in (1, 2)])
    if case.loss == "crd":
        loss.eval()  # or each evaluation would change the bank
    taps = read_taps(loss, given.student)

    def compute(logits: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        student = with_taps(loss, View(logits, {}), dict(zip(taps, rest, strict=False)))
        return tuple(compute_terms(loss, Batch(student, given.teacher, given.samples)).values())

    inputs = [given.student.logits, *taps.values()]
    inputs = [one.requires_grad_(number > 0 or loss.needs_logits) for number, one in enumerate(inputs)]
    assert torch.autograd.gradcheck(compute, [*inputs, *loss.parameters()], fast_mode=loss.needs_maps)
    terms = compute(*inputs)
    assert all(term.ndim == 0 and term.requires_grad and term.dtype == torch.float64 for term in terms)


@pytest.mark.parametrize("case", IN_ANY_ORDER, ids=[case.name for case in IN_ANY_ORDER])
def test_order_of_a_batch_changes_nothing(case: Case) -> None:
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    losses = [make(case) for _ in range(2)]
    for step in range(3):  # the later ones meet banks that the first have changed
        batch = make_weighted_batch(losses[0], seed=step)
        found = compute_terms(losses[0], batch), compute_terms(losses[1], reorder(batch, order))
        assert_same(*found)
        gradients = []
        for loss, terms in zip(losses, found, strict=True):
            parameters = list(loss.parameters())
            gradients.append(torch.autograd.grad(sum(terms.values()), parameters) if parameters else ())
        for own, other in zip(*gradients, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


class Second(OneProcess):
    """The second of two processes, which remembers what it gives to the first."""

    def __init__(self) -> None:
        self.given: list[Tensor] = []

    def gather(self, tensor: Tensor) -> Tensor:
        self.given.append(tensor)
        return tensor

    gather_with_gradient = gather


class First(OneProcess):
    """The first of two processes."""

    def __init__(self, second: Second) -> None:
        self.second = second

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat([tensor, self.second.given.pop(0).detach()])

    gather_with_gradient = gather


@pytest.mark.parametrize("name", WHOLE_BATCH)
def test_two_processes_compare_the_whole_batch(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    batch, second = make_weighted_batch(make(case), seed=0), Second()
    compute_terms(make(case, replace(SIZES, processes=second)), reorder(batch, torch.arange(3, 6)))
    found = compute_terms(make(case, replace(SIZES, processes=First(second))), reorder(batch, torch.arange(3)))
    assert_same(found, compute_terms(make(case), batch))
    assert not second.given


LAYERLESS = [case for case in CASES if not list(make(case).parameters())]


@pytest.mark.parametrize("case", LAYERLESS, ids=[case.name for case in LAYERLESS])
def test_losses_without_layers_compute_in_float32(case: Case) -> None:
    """And so do their gradients, which show what a mean hides."""
    found = []
    for lower in (True, False):
        loss, (student, teacher, samples) = make(case), make_batch(0)
        read = map_view(student, lambda one: one.requires_grad_())
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            terms = compute_terms(loss, Batch(read, teacher, samples))
        inputs = [read.logits] if loss.needs_logits else list(read_taps(loss, read).values())
        found.append((terms, torch.autograd.grad(sum(terms.values()), inputs)))
    (terms, gradients), (expected, expected_gradients) = found
    assert_same(terms, expected)
    for own, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-7)


@every_loss
def test_names_of_classes_change_nothing(case: Case) -> None:
    names = torch.tensor([2, 0, 3, 1])  # of the classes, each now another's
    back = names.argsort()
    renamed = make(case, replace(SIZES, labels=names[LABELS]))
    loss = make(case)
    for step in range(2):
        batch = make_weighted_batch(loss, seed=step)
        student, teacher = (replace(view, logits=view.logits[:, back]) for view in batch[:2])
        classifier = deepcopy(teacher.classifier)
        for own, other in zip(classifier.parameters(), teacher.classifier.parameters(), strict=True):
            own.copy_(other[back])
        teacher, given = replace(teacher, classifier=classifier), batch.samples
        samples = Samples(given.indices, names[given.labels], names[given.targets], given.weights)
        assert_same(compute_terms(renamed, Batch(student, teacher, samples)), compute_terms(loss, batch))


@every_weighted_loss
def test_weights_of_one_are_no_weights(case: Case) -> None:
    loss, other = make(case), make(case)
    batch = make_batch(0)
    ones = replace(batch.samples, weights=torch.ones(6))
    assert_same(compute_terms(loss, batch), compute_terms(other, Batch(batch.student, batch.teacher, ones)))


@every_weighted_loss
def test_doubled_weights_double_the_loss(case: Case) -> None:
    loss, other = make(case), make(case)
    batch = make_batch(0, weighted=True)
    twice = replace(batch.samples, weights=2 * batch.samples.weights)
    found = compute_terms(loss, Batch(batch.student, batch.teacher, twice))
    assert_same(found, {name: 2 * term for name, term in compute_terms(other, batch).items()})


@every_loss
def test_only_what_is_declared_is_read(case: Case) -> None:
    loss, twin = make(case), make(case)
    student, teacher, samples = make_batch(0)
    nothing = torch.empty(0)
    own, other = (with_taps(loss, view, read_taps(loss, view)) for view in (student, teacher))
    if not loss.needs_logits:
        own, other = replace(own, logits=nothing), replace(other, logits=nothing)
    if not loss.needs_teacher:
        other = View(nothing, {})
    if not loss.needs_classifier:
        other = replace(other, classifier=None)
    if not loss.needs_labels:
        samples = replace(samples, labels=nothing, targets=nothing)
    assert_same(compute_terms(loss, Batch(own, other, samples)), compute_terms(twin, make_batch(0)))


@every_loss
def test_projections_are_matrices_of_its_taps(case: Case) -> None:
    loss = make(case)
    for name, value in loss.list_projections().items():
        tap, side, part = name.split(".")
        width = {"student": SIZES.student, "teacher": SIZES.teacher}[side][tap][0]
        assert tap in loss.used_taps and not value.requires_grad
        assert value.shape[1:] == ((width,) if part == "weight" else ())


def test_taps_without_weight_are_not_used() -> None:
    loss = Loss()
    assert loss.used_taps == []
    loss.taps = {"last": 1.0, "penultimate": 0.0}
    assert loss.used_taps == ["last"]


def test_a_loss_may_define_forward_alone() -> None:
    class Mean(Loss):
        needs_logits = True

        def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
            return (student.logits - teacher.logits).mean()

    loss, batch = Mean(), make_batch(0)
    loss.setup(SIZES)
    loss.start_epoch()
    loss.prepare(*batch)
    loss.finish_prepare()
    loss.fold_into(nn.Linear(4, CLASSES), nn.Linear(6, CLASSES))
    assert loss(*batch).item() == pytest.approx((batch.student.logits - batch.teacher.logits).mean().item())
    assert loss.compare(batch.student, batch.teacher) == {} and loss.list_projections() == {}
    assert loss.predict_logits(batch.student, batch.teacher) is batch.student.logits
    assert loss.estimate_memory(SIZES, 6, "cpu") == []


def test_a_loss_without_forward_is_named() -> None:
    class Forgotten(Loss):
        pass

    with pytest.raises(TypeError, match="Forgotten defines no forward"):
        Forgotten()(*make_batch(0))


def test_the_only_process_has_every_row() -> None:
    alone, rows = OneProcess(), torch.arange(3)
    assert (alone.rank(), alone.world_size()) == (0, 1)
    for join in (alone.gather, alone.gather_with_gradient, alone.gather_batch):
        assert join(rows) is rows
