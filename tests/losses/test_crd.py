"""Of losses/crd.py and losses/bank.py, against a float64 reference that gathers (B, K + 1, D) vectors."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.reference import drawn_samples
from losses.bank import LossAgainstBank, MemoryBank, Windows
from losses.crd import CRDLoss
from losses.negatives import NegativeSampler
from losses.objectives import BinaryNCE, Found, InfoNCE

N, B, K, D, CLASSES = 60, 12, 24, 16, 5
LABELS = torch.arange(N) % CLASSES
DIMS = (10, 14)  # of the student's and the teacher's feature
FROM_BANK = [(mode, objective) for mode in ("exact", "relax", "instance") for objective in ("nce", "infonce")]
PROJECTIONS = ("project_student.weight", "project_student.bias", "project_teacher.weight", "project_teacher.bias")


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.pow(2).sum(dim=-1, keepdim=True).sqrt()


def by_sample(loss: CRDLoss, bank: MemoryBank) -> Tensor:
    """A bank's entries in the order of the samples, float64."""
    return bank.features[loss.sampler.position].double()


class Reference:
    """The equations in float64: explicit vectors, no shared code with the product."""

    def __init__(self, loss: CRDLoss, momentum: float) -> None:
        state = {name: value for name, value in loss.state_dict().items() if isinstance(value, Tensor)}
        self.parameters = {name: state[name].double().requires_grad_() for name in PROJECTIONS}
        self.banks = [by_sample(loss, bank) for bank in (loss.student_bank, loss.teacher_bank)]
        self.objective, self.temperature, self.momentum = loss.objective, loss.temperature, momentum
        self.normalizers: list[Tensor] = []

    def __call__(self, student: Tensor, teacher: Tensor, indices: Tensor, drawn: Tensor) -> Tensor:
        weights = self.parameters
        z_student = unit(student @ weights["project_student.weight"].T + weights["project_student.bias"])
        z_teacher = unit(teacher @ weights["project_teacher.weight"].T + weights["project_teacher.bias"])
        first = not self.normalizers
        loss = torch.zeros((), dtype=torch.float64)
        for side, (anchors, bank) in enumerate([(z_student, self.banks[1]), (z_teacher, self.banks[0])]):
            entries = bank[drawn]  # (B, K + 1, D)
            p = torch.exp((anchors[:, None] * entries).sum(dim=2) / self.temperature)  # (B, K + 1)
            if first:
                self.normalizers.append(p.detach().mean() * N)
            loss = loss + (self.nce(p / self.normalizers[side]) if self.objective == "nce" else self.infonce(p))
        for bank, new in zip(self.banks, (z_student, z_teacher), strict=True):
            for row, index in enumerate(indices.tolist()):
                bank[index] = unit(self.momentum * bank[index] + (1 - self.momentum) * new[row].detach())
        return loss

    def nce(self, p: Tensor) -> Tensor:  # Eq. 18 and 19: h = p / (p + K/N)
        h = p / (p + K / N)
        return -(h[:, 0].log() + (1 - h[:, 1:]).log().sum(dim=1)).mean()

    def infonce(self, p: Tensor) -> Tensor:
        return -(p[:, 0] / p.sum(dim=1)).log().mean()


def make(seed: int = 0, **options: object) -> CRDLoss:
    torch.manual_seed(seed)
    settings = {"dim": D, "num_negatives": K, "temperature": 0.1, "momentum": 0.5} | options
    return CRDLoss(*DIMS, LABELS, **settings)


def features(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher features (B, .) that resemble each other, and the indices (B,) of a batch."""
    source = torch.Generator().manual_seed(seed)
    shared = torch.randn(B, max(DIMS), generator=source)
    student, teacher = (shared[:, :dim] + 0.3 * torch.randn(B, dim, generator=source) for dim in DIMS)
    return student, teacher, torch.randperm(N, generator=source)[:B]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest entry."""
    assert (actual.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


def step_both(loss: CRDLoss, reference: Reference, seed: int) -> None:
    """One training step of both on one draw; losses and all gradients must agree."""
    student, teacher, indices = features(seed)
    draw = loss.sampler.draw(indices)
    drawn = drawn_samples(loss.sampler, draw)
    inputs = [student.clone().requires_grad_(), teacher.clone().requires_grad_()]
    expected_inputs = [student.double().requires_grad_(), teacher.double().requires_grad_()]
    loss.zero_grad()
    actual, expected = loss(*inputs, indices, draw), reference(*expected_inputs, indices, drawn)
    actual.backward()
    gradients = torch.autograd.grad(expected, [*expected_inputs, *reference.parameters.values()])
    assert_close(actual, expected)
    for tensor, gradient in zip([*inputs, *map(loss.get_parameter, PROJECTIONS)], gradients, strict=True):
        assert_close(tensor.grad, gradient)


@pytest.mark.parametrize(("mode", "objective"), FROM_BANK)
def test_equals_the_equations_over_several_steps(mode: str, objective: str) -> None:
    loss = make(mode=mode, objective=objective, momentum=0.7)
    reference = Reference(loss, momentum=0.7)
    for step in range(4):  # from the second on with updated banks and the first batch's Z
        step_both(loss, reference, seed=step)
        loss.rearrange(loss.sampler.reshuffle())  # which the reference knows nothing of
    assert_close(by_sample(loss, loss.student_bank), reference.banks[0])
    assert_close(by_sample(loss, loss.teacher_bank), reference.banks[1])
    if objective == "nce":
        assert_close(loss.log_z, torch.stack(reference.normalizers).log())


def test_in_batch_weights_multiply_both_anchors_of_an_image() -> None:
    loss = make(objective="infonce", mode="instance", negatives="batch")
    student, teacher, indices = features(0)
    weights = torch.linspace(0, 3, B)
    rows = [side.detach().double() for side in loss.project(student, teacher)]
    expected = 0.0
    for i in range(B):
        for anchors, others in (rows, rows[::-1]):
            shares = [math.exp(torch.dot(anchors[i], others[j]).item() / 0.1) for j in range(B)]
            expected -= weights[i].item() * math.log(shares[i] / sum(shares)) / B
    assert loss(student, teacher, indices, weights=weights).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="negatives from the batch"):
        make()(student, teacher, indices, weights=weights)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_in_batch_infonce_equals_the_published_equation(temperature: float) -> None:
    loss = make(objective="infonce", mode="instance", negatives="batch", temperature=temperature)
    student, teacher, indices = features(0)
    student.requires_grad_()
    leaf = student.detach().double().requires_grad_()
    double = loss.double()
    rows = unit(double.project_student(leaf)), unit(double.project_teacher(teacher.double()))
    expected = torch.zeros((), dtype=torch.float64)
    for anchors, others in (rows, rows[::-1]):
        for i in range(B):
            similar = [torch.dot(anchors[i], others[j]) / temperature for j in range(B)]
            negatives = sum(similar[j].exp() for j in range(B) if j != i)
            expected = expected - (similar[i].exp() / (similar[i].exp() + negatives)).log() / B
    expected.backward()
    parameter_gradients = [double.get_parameter(name).grad.clone() for name in PROJECTIONS]
    loss = loss.float()
    loss.zero_grad()
    actual = loss(student, teacher, indices)
    actual.backward()
    assert_close(actual, expected)
    assert_close(student.grad, leaf.grad)
    for name, gradient in zip(PROJECTIONS, parameter_gradients, strict=True):
        assert_close(loss.get_parameter(name).grad, gradient)


@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_gradcheck(objective: str) -> None:
    torch.manual_seed(0)
    anchors = unit(torch.randn(3, 4, dtype=torch.float64)).requires_grad_()
    bank = unit(torch.randn(8, 4, dtype=torch.float64))
    draw = NegativeSampler(torch.arange(8) % 4, 8, "relax").draw(torch.arange(3))  # 6 others: with repeats

    def loss(anchors: Tensor) -> Tensor:
        new = InfoNCE() if objective == "infonce" else BinaryNCE(torch.tensor(2.0), 8, 8)
        return LossAgainstBank.apply(anchors, bank, Windows(draw, len(bank), block=3), new)

    assert torch.autograd.gradcheck(loss, (anchors,))


class Squares:
    """Weighs an entry by its score, and keeps Σ score of each row."""

    def begin(self, rows: int, block: Tensor) -> None:
        self.sums = block.new_zeros(rows)

    def take(self, scores: Tensor, rows: slice) -> None:
        scores.nan_to_num_(neginf=0)
        self.sums[rows] += scores.sum(dim=1)

    def close(self, positives: Tensor) -> Found:
        raise NotImplementedError


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
        entries = bank[sampler.position[drawn_samples(sampler, draw)[:, 1:]]]  # (B, K, D)
        scores = (entries * anchors[:, None]).sum(dim=2)
        pulls = Windows(draw, N, block, masked).apply(squares, anchors, bank).sum(dim=0)
        torch.testing.assert_close(squares.sums.view(-1, B).sum(dim=0), scores.sum(dim=1), rtol=1e-4, atol=1e-3)
        expected = (scores[..., None] * entries).sum(dim=1)
        torch.testing.assert_close(pulls, expected, rtol=1e-4, atol=1e-3)


def test_of_several_processes_each_has_its_anchors_windows() -> None:
    sampler = NegativeSampler(LABELS, K, "exact")
    bank, anchors = torch.randn(N, D), torch.randn(B, D)
    for _ in range(10):
        draw, found = sampler.draw(torch.randperm(N)[:B]), torch.empty(B, D)
        for rank in range(5):
            windows = Windows(draw.part(rank, 5), N, block=7)
            found[rank::5] = windows.apply(Squares(), anchors[rank::5], bank).sum(dim=0)
        torch.testing.assert_close(found, Windows(draw, N, block=7).apply(Squares(), anchors, bank).sum(dim=0))


@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_float16_autocast_loses_no_slope_of_a_negative(objective: str) -> None:
    """One of K negatives pulls with about 1 / (B K), less than float16 can hold: there all is as in float32."""
    torch.manual_seed(0)
    loss = make(objective=objective)
    _, _, indices = features(0)
    windows = loss.teacher_bank.windows(loss.sampler.draw(indices))
    start = torch.randn(len(indices), loss.teacher_bank.features.shape[1])
    found = []
    for lower in (False, True):
        anchors = start.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=lower):
            value = loss.teacher_bank.loss(anchors, windows, loss._objective(loss.log_z[0]))
        value.backward()
        found.append((value.detach(), anchors.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_bfloat16_autocast_is_within_a_percent(objective: str) -> None:
    exact, rounded = make(objective=objective), make(objective=objective)
    for step in range(3):
        student, teacher, indices = features(step)
        draw = exact.sampler.draw(indices)
        expected = exact(student, teacher, indices, draw)
        with torch.autocast("cpu", torch.bfloat16):
            actual = rounded(student, teacher, indices, draw)
        assert actual.dtype == torch.float32
        assert actual.item() == pytest.approx(expected.item(), rel=0.01)


@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_a_saved_state_continues_identically(objective: str) -> None:
    loss = make(objective=objective)
    loss(*features(0))
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    other = make(seed=9, objective=objective)
    other.load_state_dict(torch.load(file, weights_only=True))
    for step in (1, 2):
        values = []
        for each in (loss, other):
            torch.manual_seed(step)
            values.append(each(*features(step)).item())
        assert values[0] == values[1]
    assert torch.equal(loss.student_bank.features, other.student_bank.features)
    assert torch.equal(loss.log_z, other.log_z)


def test_two_processes_keep_the_banks_and_z_of_one() -> None:
    """`gather` of the first process appends what the second one sent, in the same order of calls."""
    student, teacher, indices = features(0)
    draw = make().sampler.draw(indices)
    parts = [slice(0, B // 2), slice(B // 2, B)]
    draws = [
        replace(draw, positives=draw.positives[part], left_out=draw.left_out[part], first=draw.first + skipped)
        for part, skipped in zip(parts, (0, B // 2 * draw.spacing), strict=True)
    ]
    sent: list[Tensor] = []

    def send(tensor: Tensor) -> Tensor:
        sent.append(tensor)
        return tensor

    second, first, whole = make(gather=send), make(gather=lambda own: torch.cat([own, sent.pop(0)])), make()
    for loss, part, own in ((second, parts[1], draws[1]), (first, parts[0], draws[0]), (whole, slice(None), draw)):
        loss(student[part], teacher[part], indices[part], own)
    assert not sent
    torch.testing.assert_close(first.log_z, whole.log_z)
    for bank in ("student_bank", "teacher_bank"):
        torch.testing.assert_close(getattr(first, bank).features, getattr(whole, bank).features)


def test_eval_changes_no_bank_and_no_state_that_training_keeps() -> None:
    loss = make()
    before = loss.teacher_bank.features.clone()
    loss.eval()(*features(0))
    assert torch.equal(loss.teacher_bank.features, before)
    loss.train()
    reference = Reference(loss, momentum=0.5)
    step_both(loss, reference, seed=1)  # Z is that of the first training batch


def test_bank_update_by_hand() -> None:
    bank = MemoryBank(3, 2, momentum=0.75)
    bank.features.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    bank.update(torch.tensor([2, 0]), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    length = math.hypot(0.75, 0.25)
    expected = torch.tensor([[0.75 / length, 0.25 / length], [0.0, 1.0], [0.6, 0.8]])
    torch.testing.assert_close(bank.features, expected)


def test_fill_sets_both_banks_to_the_projected_features() -> None:
    loss = make()
    student, teacher, indices = features(0)
    before = by_sample(loss, loss.teacher_bank)
    loss.fill(student, teacher, indices)
    assert_close(by_sample(loss, loss.student_bank)[indices], unit(loss.project_student(student)).double())
    assert_close(by_sample(loss, loss.teacher_bank)[indices], unit(loss.project_teacher(teacher)).double())
    others = torch.ones(N, dtype=torch.bool).index_fill(0, indices, False)
    assert torch.equal(by_sample(loss, loss.teacher_bank)[others], before[others])


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"momentum": 1.0},
        {"num_negatives": 0},
        {"negatives": "batch"},
        {"negatives": "batch", "objective": "infonce", "mode": "exact"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="need"):
        make(**options)
