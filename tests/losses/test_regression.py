from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from losses.regression import WhitenedRegression, explained_variance, whitening


def features(seed=0, count=500, dim=6):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim))


def test_whitening_of_a_diagonal_by_hand():
    covariance = torch.diag(torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64))
    found = whitening(covariance, ridge=0.25)  # adds 1 to each
    torch.testing.assert_close(found, torch.diag(torch.tensor([5**-0.5, 2**-0.5, 1.0], dtype=torch.float64)))
    torch.testing.assert_close(whitening(covariance, ridge=0.25, power=0.0), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("power", [-0.5, -0.25])
def test_whitening_is_a_power_of_the_matrix(power):
    covariance = torch.cov(features().T)
    ridge = 0.01 * torch.linalg.eigvalsh(covariance)[-1]
    expected = scipy.linalg.fractional_matrix_power(covariance.numpy() + ridge.item() * np.eye(6), power)
    np.testing.assert_allclose(whitening(covariance, 0.01, power).numpy(), expected, rtol=1e-8, atol=1e-10)


def test_what_was_observed_in_parts_becomes_white():
    teacher = features()
    loss = WhitenedRegression(4, 6, ridge=1e-9)
    for part in teacher.split(170):
        loss.observe(part)
    loss.settle()
    _, white = loss.project(torch.zeros(500, 4), teacher)
    np.testing.assert_allclose(np.cov(white.detach().double().numpy().T, bias=True), np.eye(6), atol=1e-3)
    np.testing.assert_allclose(white.detach().mean(dim=0), 0, atol=1e-4)
    weight, bias = loss.linear_maps()["teacher"]
    torch.testing.assert_close(F.linear(teacher.float(), weight, bias), white, rtol=1e-4, atol=1e-4)


def test_statistics_of_processes_are_those_of_all_images():
    teacher = features()
    whole, parts = WhitenedRegression(4, 6, 0.01), [WhitenedRegression(4, 6, 0.01) for _ in range(2)]
    whole.observe(teacher)
    for part, rows in zip(parts, teacher.split(250), strict=True):
        part.observe(rows)
    others = {id(a): b for a, b in zip(parts[0]._sums(), parts[1]._sums(), strict=True)}
    sums = iter(list(others.values()))
    parts[0].gather = lambda tensor: torch.cat([tensor, next(sums)[None]])
    whole.settle()
    parts[0].settle()
    torch.testing.assert_close(parts[0].matrix, whole.matrix)
    torch.testing.assert_close(parts[0].mean, whole.mean)


def test_the_mean_leaves_all_of_the_variance():
    loss, teacher = WhitenedRegression(4, 6, ridge=0.01), features()
    loss.observe(teacher)
    loss.settle()
    with torch.no_grad():
        loss.project_student.weight.zero_()
        loss.project_student.bias.zero_()  # the mean of what is white
    assert loss(torch.ones(500, 4), teacher).item() == pytest.approx(1, rel=1e-5)


def test_the_loss_is_a_sum_over_channels_and_a_mean_over_images():
    loss = WhitenedRegression(2, 3, ridge=0.01)
    with torch.no_grad():
        loss.project_student.weight.zero_()
        loss.project_student.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    teacher = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])  # as it is, before `settle`
    assert loss.eval()(torch.zeros(2, 2), teacher).item() == pytest.approx((0 + 1 + 4 + 4) / 2)
    weighted = loss(torch.zeros(2, 2), teacher.flip(0), torch.tensor([0.5, 7.0]))
    assert weighted.item() == pytest.approx((0.5 * (1 + 4 + 4) + 7 * 0) / 2)


def test_the_student_is_standardised_and_its_linear_map_is_that_of_evaluation():
    loss = WhitenedRegression(3, 4, ridge=0.01)
    loss.standardise.momentum = 1.0  # the running statistics are those of the last batch
    student, teacher = features(3, 50, 3).float(), features(4, 50, 4)
    loss.observe(teacher)
    loss.settle()
    own, _ = loss.project(student, teacher)
    standard = (student - student.mean(dim=0)) / (student.var(dim=0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(own, loss.project_student(standard), rtol=1e-4, atol=1e-5)
    weight, bias = loss.linear_maps()["student"]
    torch.testing.assert_close(F.linear(student, weight, bias), loss.eval().project(student, teacher)[0])


def test_gradients_agree_with_differences():
    loss = WhitenedRegression(3, 4, ridge=0.1).double()
    loss.observe(features(1, 50, 4))
    loss.settle()
    student, teacher = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), features(2, 5, 4)

    def of(student):  # `project` rounds to float32, which differences cannot see through
        white = (teacher - loss.mean) @ loss.matrix
        return (loss.project_student(loss.standardise(student)) - white).square().sum(dim=1).mean() / loss.variance

    assert gradcheck(of, (student,))
    (expected,) = torch.autograd.grad(of(student), student)
    (found,) = torch.autograd.grad(loss(student, teacher), student)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_explained_variance_by_hand():
    target = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    assert explained_variance(target, target) == 1
    assert explained_variance(target.mean(dim=0).expand(2, 2), target) == 0
    assert explained_variance(torch.tensor([[0.0, 0.0], [2.0, 2.0]]), target).item() == pytest.approx(1 - 4 / 10)
