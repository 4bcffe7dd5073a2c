"""Of losses/crd.py, against the equations in float64 with explicit vectors; of banks see test_contrast.py."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import Tensor

from benchmarks.reference import list_drawn_samples
from losses.bank import BLOCK
from losses.contrast import BankContrast
from losses.crd import CRD, Projections, compute_batch_contrast, compute_infonce, compute_nce
from losses.loss import Samples, Sizes, View
from tests.losses.batches import normalise_rows

N, B, K, D, CLASSES = 60, 12, 24, 16, 5
LABELS = torch.arange(N) % CLASSES
TAPS = {"penultimate": 0.5, "last": 1.0}
WIDTHS = ({"penultimate": (7,), "last": (10,)}, {"penultimate": (9,), "last": (14,)})  # student and teacher
FROM_BANK = [(mode, objective) for mode in ("exact", "relax", "instance") for objective in ("nce", "infonce")]
IN_BATCH = {"objective": "infonce", "mode": "instance", "negatives": "batch"}
PROJECTIONS = [
    f"projection.{tap}.{side}.{part}"
    for tap in TAPS
    for side in ("student", "teacher")
    for part in ("weight", "bias")
]
Given = tuple[View, View, Samples]


def make(seed: int = 0, processes: object = None, **options: object) -> CRD:
    loss = CRD(**{"dim": D, "num_negatives": K, "temperature": 0.1, "bank_momentum": 0.5} | options)
    torch.manual_seed(seed)
    loss.setup(Sizes(*WIDTHS, LABELS) if processes is None else Sizes(*WIDTHS, LABELS, processes))
    return loss


def draw_features(seed: int, weights: Tensor | None = None) -> Given:
    """Draw arguments of `CRD.forward`, features (B, .) that resemble each other."""
    source = torch.Generator().manual_seed(seed)
    shared = torch.randn(B, 14, generator=source)
    views = [
        View(
            torch.empty(0),
            {tap: shared[:, :dim] + 0.3 * torch.randn(B, dim, generator=source) for tap, (dim,) in widths.items()},
        )
        for widths in WIDTHS
    ]
    indices = torch.randperm(N, generator=source)[:B]
    return *views, Samples(indices, LABELS[indices], LABELS[indices], weights)


def with_gradient(view: View, dtype: torch.dtype) -> View:
    return View(
        view.logits, {tap: feature.to(dtype).clone().requires_grad_() for tap, feature in view.taps.items()}
    )


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest entry."""
    assert (actual.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


def order_by_sample(loss: CRD, tap: str) -> list[Tensor]:
    """The student's and the teacher's bank in the order of the samples, float64."""
    bank = loss.get_bank(tap)
    return [one.features[loss.sampler.position].double() for one in (bank.student, bank.teacher)]


class Reference:
    """The equations in float64: explicit vectors, no shared code with the product."""

    def __init__(self, loss: CRD, momentum: float) -> None:
        state = loss.state_dict()
        self.parameters = {name: state[name].double().requires_grad_() for name in PROJECTIONS}
        self.banks = {tap: order_by_sample(loss, tap) for tap in TAPS}
        self.objective, self.temperature, self.momentum = loss.objective, loss.temperature, momentum
        self.normalizers: dict[str, list[Tensor]] = {tap: [] for tap in TAPS}

    def __call__(self, tap: str, student: Tensor, teacher: Tensor, indices: Tensor, drawn: Tensor) -> Tensor:
        z_student, z_teacher = (
            normalise_rows(
                feature @ self.get_parameter(tap, side, "weight").T + self.get_parameter(tap, side, "bias")
            )
            for side, feature in (("student", student), ("teacher", teacher))
        )
        banks, normalizers = self.banks[tap], self.normalizers[tap]
        first = not normalizers
        loss = torch.zeros((), dtype=torch.float64)
        for side, (anchors, bank) in enumerate([(z_student, banks[1]), (z_teacher, banks[0])]):
            entries = bank[drawn]  # (B, K + 1, D)
            p = torch.exp((anchors[:, None] * entries).sum(dim=2) / self.temperature)  # (B, K + 1)
            if first:
                normalizers.append(p.detach().mean() * N)
            binary = self.objective == "nce"
            loss = loss + (self.compute_nce(p / normalizers[side]) if binary else self.compute_infonce(p))
        for bank, new in zip(banks, (z_student, z_teacher), strict=True):
            for row, index in enumerate(indices.tolist()):
                bank[index] = normalise_rows(self.momentum * bank[index] + (1 - self.momentum) * new[row].detach())
        return loss

    def get_parameter(self, tap: str, side: str, part: str) -> Tensor:
        return self.parameters[f"projection.{tap}.{side}.{part}"]

    def compute_nce(self, p: Tensor) -> Tensor:  # Eq. 18 and 19: h = p / (p + K/N)
        h = p / (p + K / N)
        return -(h[:, 0].log() + (1 - h[:, 1:]).log().sum(dim=1)).mean()

    def compute_infonce(self, p: Tensor) -> Tensor:
        return -(p[:, 0] / p.sum(dim=1)).log().mean()


def step_both(loss: CRD, reference: Reference, seed: int) -> None:
    """One training step of both on one draw for all taps; losses and all gradients must agree."""
    student, teacher, samples = draw_features(seed)
    torch.manual_seed(seed)
    drawn = list_drawn_samples(loss.sampler, loss.sampler.draw(samples.indices))
    views = [with_gradient(view, torch.float32) for view in (student, teacher)]
    exact = [with_gradient(view, torch.float64) for view in (student, teacher)]
    loss.zero_grad()
    torch.manual_seed(seed)
    actual = loss(*views, samples)
    expected = {tap: reference(tap, *(view.taps[tap] for view in exact), samples.indices, drawn) for tap in TAPS}  # type: ignore[call-arg]
    assert actual.keys() == expected.keys()
    for tap in TAPS:
        assert_close(actual[tap], expected[tap])
    sum(actual.values()).backward()
    sum(expected.values()).backward()
    for name, parameter in reference.parameters.items():
        assert_close(loss.get_parameter(name).grad, parameter.grad)
        parameter.grad = None
    for view, other in zip(views, exact, strict=True):
        for tap in TAPS:
            assert_close(view.taps[tap].grad, other.taps[tap].grad)


@pytest.mark.parametrize(("mode", "objective"), FROM_BANK)
def test_equals_the_equations_over_several_steps(mode: str, objective: str) -> None:
    loss = make(mode=mode, objective=objective, bank_momentum=0.7)
    reference = Reference(loss, momentum=0.7)
    for step in range(4):  # from the second on with updated banks and the first batch's Z
        step_both(loss, reference, seed=step)
        loss.start_epoch()  # a new order, which the reference knows nothing of
    for tap in TAPS:
        for found, expected in zip(order_by_sample(loss, tap), reference.banks[tap], strict=True):
            assert_close(found, expected)
        if objective == "nce":
            assert_close(loss.get_bank(tap).log_z, torch.stack(reference.normalizers[tap]).log())


def make_vectors(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One anchor, its positive and its negatives, whose inner products are the scores (1 + K,), positive first."""
    axes = torch.eye(len(scores), dtype=torch.float64)
    return scores[None], axes[:1], axes[None, 1:]


def test_nce_by_hand() -> None:
    # Z = 2, K/N = 2/4: p = (2, 1/2, 3/2), h = (4/5, 1/2, 3/4), loss = -log(4/5 * 1/2 * 1/4) = log 10
    vectors = make_vectors(torch.tensor([4.0, 1.0, 3.0], dtype=torch.float64).log())
    assert compute_nce(*vectors, torch.tensor(2.0).log(), num_samples=4).item() == pytest.approx(math.log(10))
    large = make_vectors(torch.tensor([0.0, 400.0], dtype=torch.float64))
    assert compute_nce(*large, torch.zeros(()), num_samples=1).item() == pytest.approx(400 + math.log(2))


def test_infonce_by_hand() -> None:
    for shares in ([2.0, 1.0, 5.0], [1.0, 1.0, 2.0]):  # the positive's is 1/4
        vectors = make_vectors(torch.tensor(shares, dtype=torch.float64).log())
        assert compute_infonce(*vectors).item() == pytest.approx(math.log(4))
    assert compute_infonce(*make_vectors(torch.tensor([0.0, 1000.0], dtype=torch.float64))).item() == 1000.0


def test_contrast_within_a_batch_by_hand() -> None:
    same = torch.eye(3)  # each image is like itself alone
    expected = 2 * math.log(1 + 2 * math.exp(-1 / 0.5))
    assert compute_batch_contrast(same, same, 0.5).item() == pytest.approx(expected)
    collapsed = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    assert compute_batch_contrast(collapsed, collapsed, 0.5).item() == pytest.approx(2 * math.log(3))
    weighted = compute_batch_contrast(same, same, 0.5, torch.tensor([0.0, 1.0, 5.0]))
    assert weighted.item() == pytest.approx(2 * expected)


def test_paper_functions_stay_on_their_device() -> None:
    anchors, positives, negatives = (torch.empty(*shape, device="meta") for shape in ((4, 8), (4, 8), (4, 6, 8)))
    log_z = torch.empty((), device="meta")
    assert compute_nce(anchors, positives, negatives, log_z, N).is_meta
    assert compute_infonce(anchors, positives, negatives).is_meta
    assert compute_batch_contrast(anchors, positives, 0.1).is_meta


def draw_gathered(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors divided by tau = 0.1 (4, D), positives (4, D) and negatives (4, 6, D), float64."""
    source = torch.Generator().manual_seed(seed)
    anchors, positives, negatives = (
        normalise_rows(torch.randn(*shape, D, generator=source, dtype=torch.float64))
        for shape in ((4,), (4,), (4, 6))
    )
    return anchors / 0.1, positives, negatives


def test_paper_functions_are_loops_over_pairs() -> None:
    anchors, positives, negatives = draw_gathered(0)
    z = 50.0
    binary, softmax = 0.0, 0.0
    for i in range(4):
        own = math.exp(torch.dot(anchors[i], positives[i]).item())
        others = [math.exp(torch.dot(anchors[i], negatives[i, k]).item()) for k in range(6)]
        h = [p / z / (p / z + 6 / N) for p in (own, *others)]
        binary -= (math.log(h[0]) + sum(math.log(1 - one) for one in h[1:])) / 4
        softmax -= math.log(own / (own + sum(others))) / 4
    log_z = torch.tensor(z, dtype=torch.float64).log()
    assert compute_nce(anchors, positives, negatives, log_z, N).item() == pytest.approx(binary)
    assert compute_infonce(anchors, positives, negatives).item() == pytest.approx(softmax)


def test_projections_give_float32_unit_vectors() -> None:
    torch.manual_seed(0)
    projections = Projections(10, 14, D)
    student, teacher = torch.randn(B, 10), torch.randn(B, 14)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = projections(student, teacher)
    for found, layer, feature in zip(
        rounded, (projections.student, projections.teacher), (student, teacher), strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=1), torch.ones(B))
        torch.testing.assert_close(
            found, normalise_rows(feature @ layer.weight.T + layer.bias), rtol=0.05, atol=0.02
        )
    exact = projections(student, teacher.double())  # taken as the student's
    torch.testing.assert_close(
        exact[1], normalise_rows(teacher @ projections.teacher.weight.T + projections.teacher.bias)
    )


def test_in_batch_weights_multiply_both_anchors() -> None:
    loss = make(**IN_BATCH)
    student, teacher, samples = draw_features(0, weights=torch.linspace(0, 3, B))
    found = loss(student, teacher, samples)
    for tap, pair in loss.project(student, teacher).items():
        rows = [side.detach().double() for side in pair]
        expected = 0.0
        for i in range(B):
            for anchors, others in (rows, rows[::-1]):
                shares = [math.exp(torch.dot(anchors[i], others[j]).item() / 0.1) for j in range(B)]
                expected -= samples.weights[i].item() * math.log(shares[i] / sum(shares)) / B
        assert found[tap].item() == pytest.approx(expected, rel=1e-5)


def test_only_negatives_of_the_batch_take_weights() -> None:
    assert CRD(**IN_BATCH).uses_weights
    assert not CRD().uses_weights and not CRD(negatives="shared").uses_weights


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_in_batch_infonce_equals_the_published_equation(temperature: float) -> None:
    loss = make(**IN_BATCH, temperature=temperature)
    given, teacher, samples = draw_features(0)
    student, exact = with_gradient(given, torch.float32), with_gradient(given, torch.float64)
    double = loss.double()
    expected = {}
    for tap in TAPS:
        layers = double.projection[tap]
        rows = (
            normalise_rows(layers.student(exact.taps[tap])),
            normalise_rows(layers.teacher(teacher.taps[tap].double())),
        )
        expected[tap] = torch.zeros((), dtype=torch.float64)
        for anchors, others in (rows, rows[::-1]):
            for i in range(B):
                similar = [torch.dot(anchors[i], others[j]) / temperature for j in range(B)]
                negatives = sum(similar[j].exp() for j in range(B) if j != i)
                expected[tap] = expected[tap] - (similar[i].exp() / (similar[i].exp() + negatives)).log() / B
    sum(expected.values()).backward()
    parameter_gradients = [double.get_parameter(name).grad.clone() for name in PROJECTIONS]
    loss = loss.float()
    loss.zero_grad()
    actual = loss(student, teacher, samples)
    sum(actual.values()).backward()
    for tap in TAPS:
        assert_close(actual[tap], expected[tap])
        assert_close(student.taps[tap].grad, exact.taps[tap].grad)
    for name, gradient in zip(PROJECTIONS, parameter_gradients, strict=True):
        assert_close(loss.get_parameter(name).grad, gradient)


@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_bfloat16_autocast_is_within_a_percent(objective: str) -> None:
    exact, rounded = make(objective=objective), make(objective=objective)
    for step in range(3):
        given, values = draw_features(step), []
        for loss, lower in ((exact, False), (rounded, True)):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16, enabled=lower):
                values.append(loss(*given))
        for tap in TAPS:
            assert values[1][tap].dtype == torch.float32
            assert values[1][tap].item() == pytest.approx(values[0][tap].item(), rel=0.01)


@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_a_saved_state_continues_identically(objective: str) -> None:
    loss = make(objective=objective)
    loss(*draw_features(0))
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    other = make(seed=9, objective=objective)
    other.load_state_dict(torch.load(file, weights_only=True))
    for step in (1, 2):
        values = []
        for each in (loss, other):
            torch.manual_seed(step)
            each.start_epoch()
            values.append({tap: term.item() for tap, term in each(*draw_features(step)).items()})
        assert values[0] == values[1]
    for tap in TAPS:
        assert torch.equal(loss.get_bank(tap).student.features, other.get_bank(tap).student.features)
        assert torch.equal(loss.get_bank(tap).log_z, other.get_bank(tap).log_z)


class OneOfTwo:
    """One of two processes that run one after the other: the second sends what the first appends."""

    def __init__(self, number: int, sent: list[Tensor], batch: Tensor) -> None:
        self.number, self.sent, self.batch = number, sent, batch

    def rank(self) -> int:
        return self.number

    def world_size(self) -> int:
        return 2

    def gather(self, tensor: Tensor) -> Tensor:
        if self.number == 0:
            return torch.cat([tensor, self.sent.pop(0)])
        self.sent.append(tensor.detach())
        return tensor

    gather_with_gradient = gather

    def gather_batch(self, tensor: Tensor) -> Tensor:
        return self.batch


def run_in_two(given: Given, **options: object) -> tuple[CRD, dict[str, Tensor], dict[str, Tensor]]:
    """The first process's loss after one step, and the terms of both processes, each with every second image."""
    (student, teacher, samples), sent, terms = given, [], []
    for number in (1, 0):
        own = slice(number, None, 2)
        views = [
            View(view.logits, {tap: feature[own] for tap, feature in view.taps.items()})
            for view in (student, teacher)
        ]
        weights = None if samples.weights is None else samples.weights[own]
        mine = Samples(samples.indices[own], samples.labels[own], samples.targets[own], weights)
        loss = make(processes=OneOfTwo(number, sent, samples.indices), **options)
        torch.manual_seed(1)
        terms.append(loss(*views, mine))
    assert not sent
    return loss, terms[1], terms[0]


@pytest.mark.parametrize("negatives", ["bank", "shared"])
def test_two_processes_keep_banks_and_z_of_one(negatives: str) -> None:
    given = draw_features(0)
    whole = make(negatives=negatives)
    torch.manual_seed(1)
    whole(*given)
    first, _, _ = run_in_two(given, negatives=negatives)
    for tap in TAPS:
        torch.testing.assert_close(first.get_bank(tap).log_z, whole.get_bank(tap).log_z)
        for bank in ("student", "teacher"):
            own, other = (getattr(loss.get_bank(tap), bank).features for loss in (first, whole))
            torch.testing.assert_close(own, other)


def test_mean_over_processes_is_the_whole_loss() -> None:
    given = draw_features(0)
    whole = make(objective="infonce")
    torch.manual_seed(1)
    expected = whole(*given)
    _, first, second = run_in_two(given, objective="infonce")
    for tap in TAPS:
        torch.testing.assert_close((first[tap] + second[tap]) / 2, expected[tap])


def test_prepare_fills_banks_with_projected_features() -> None:
    loss = make(bank_init="features")
    assert loss.first_pass == "both" and make().first_pass == "none" and make(**IN_BATCH).first_pass == "none"
    student, teacher, samples = draw_features(0)
    before = {tap: order_by_sample(loss, tap) for tap in TAPS}
    loss.prepare(student, teacher, samples)
    others = torch.ones(N, dtype=torch.bool).index_fill(0, samples.indices, False)
    for tap in TAPS:
        layers = loss.projection[tap]
        expected = layers.student(student.taps[tap]), layers.teacher(teacher.taps[tap])
        for found, new, old in zip(order_by_sample(loss, tap), expected, before[tap], strict=True):
            assert_close(found[samples.indices], normalise_rows(new).double())
            assert torch.equal(found[others], old[others])


def test_new_epoch_reorders_but_keeps_entries() -> None:
    loss = make()
    order, before = loss.sampler.order.clone(), {tap: order_by_sample(loss, tap) for tap in TAPS}
    loss.start_epoch()
    assert not torch.equal(loss.sampler.order, order)
    assert all(
        torch.equal(*pair) for tap in TAPS for pair in zip(order_by_sample(loss, tap), before[tap], strict=True)
    )
    make(**IN_BATCH).start_epoch()  # without a bank there is nothing to do


def test_evaluation_changes_no_bank() -> None:
    loss = make()
    before = {tap: order_by_sample(loss, tap) for tap in TAPS}
    loss.eval()(*draw_features(0))
    assert all(
        torch.equal(*pair) for tap in TAPS for pair in zip(order_by_sample(loss, tap), before[tap], strict=True)
    )
    step_both(loss.train(), Reference(loss, momentum=0.5), seed=1)  # Z is that of the first training batch


def test_unweighted_taps_are_not_read() -> None:
    student, teacher, samples = draw_features(0)
    loss = make(taps={"penultimate": 0.0, "last": 2.0})
    last = [View(view.logits, {"last": view.taps["last"]}) for view in (student, teacher)]
    assert loss(*last, samples).keys() == {"last"}
    assert loss.compare(*last).keys() == {"cosine_last"}
    assert all(name.split(".")[1] == "last" for name, _ in loss.named_parameters())


def test_compare_is_the_mean_cosine_of_projections() -> None:
    loss = make()
    student, teacher, _ = draw_features(3)
    found = loss.compare(student, teacher)
    for tap, (own, other) in loss.project(student, teacher).items():
        assert found[f"cosine_{tap}"] == pytest.approx((own * other).sum(dim=1).mean().item(), rel=1e-5)
    assert found.keys() == {"cosine_penultimate", "cosine_last"}


def test_projections_are_kept_by_tap_and_side() -> None:
    loss = make()
    found = loss.list_projections()
    assert found.keys() == {name.removeprefix("projection.") for name in PROJECTIONS}
    for name in PROJECTIONS:
        kept = found[name.removeprefix("projection.")]
        assert torch.equal(kept, loss.get_parameter(name)) and not kept.requires_grad


def test_memory_by_hand() -> None:
    sizes = Sizes(*WIDTHS, torch.zeros(10_000))
    banks, negatives = make(num_negatives=5000, dim=8).estimate_memory(sizes, batch_size=20, device="cpu")
    # two taps, two networks; a parameter, its gradient and momentum of widths 7 + 9 and 10 + 14
    assert (banks.option, banks.bytes) == ("dim", 4 * (2 * 2 * 10_000 * 8 + 3 * (16 + 24) * 8))
    rows = (BLOCK["cpu"] + 5000) * 20 // 10_000 + 2  # whose windows a block is part of
    assert (negatives.option, negatives.bytes) == ("num_negatives", 13 * rows * 2048 + 2 * 4 * 3 * 20 * 8)
    _, shared = make(num_negatives=5000, dim=8, negatives="shared").estimate_memory(
        sizes, batch_size=20, device="cpu"
    )
    assert shared.bytes == 13 * 3 * 20 * 2048 + 2 * 4 * 3 * 20 * 8
    (alone,) = make(**IN_BATCH, dim=8).estimate_memory(sizes, batch_size=20, device="cpu")
    assert (alone.option, alone.bytes) == ("dim", 4 * 3 * (16 + 24) * 8)


def test_memory_counts_the_banks_that_are_made() -> None:
    loss = make(taps={"last": 1.0})
    bank = loss.get_bank("last")
    assert isinstance(bank, BankContrast)
    made = sum(one.features.nbytes for one in (bank.student, bank.teacher))
    parameters = sum(one.nbytes for name, one in loss.named_parameters() if name.endswith("weight"))
    assert loss.estimate_memory(Sizes(*WIDTHS, LABELS), B, "cpu")[0].bytes == made + 3 * parameters


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, **IN_BATCH},
        {"bank_momentum": 1.0},
        {"num_negatives": 0},
        {"negatives": "batch"},
        {"negatives": "batch", "objective": "infonce", "mode": "exact"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="need"):
        CRD(**options)
