from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from diagnostics.fidelity import measure_fidelity

TEACHER = np.array([[2, 0, 0], [0, 2, 0], [2, 0, 0], [0, 2, 0], [0, 2, 0]], dtype=np.float32)  # 0 1 0 1 1
STUDENT = np.array([[2, 0, 0], [2, 0, 0], [2, 0, 0], [0, 0, 2], [0, 2, 0]], dtype=np.float32)  # 0 0 0 2 1
LABELS = np.array([0, 1, 1, 0, 0])


def draw_logits(seed: int, samples: int = 40, classes: int = 5) -> np.ndarray:
    return (4 * np.random.default_rng(seed).normal(size=(samples, classes))).astype(np.float32)


def test_counts_by_hand() -> None:
    result = measure_fidelity(TEACHER, STUDENT, LABELS)
    assert result.agreement == 3 / 5
    assert result.teacher_errors == 3  # images 2, 3, 4
    assert result.agreement_on_errors == 2 / 3  # the student repeats 2 and 4, and is wrong otherwise on 3
    assert result.accuracy_change == [0.0, -0.5, None]
    assert result.notes == {"accuracy_change": "No test image of class 2."}


def test_kl_is_the_mean_of_scipys_relative_entropy() -> None:
    teacher, student = draw_logits(0), draw_logits(1)
    p, q = softmax(teacher.astype(np.float64), axis=1), softmax(student.astype(np.float64), axis=1)
    kl = measure_fidelity(teacher, student, np.zeros(40, dtype=np.int64)).kl
    assert kl == pytest.approx(entropy(p, q, axis=1).mean(), rel=1e-12)


def test_kl_does_not_underflow() -> None:
    teacher, student = np.array([[0, 1000]], dtype=np.float32), np.array([[1000, 0]], dtype=np.float32)
    assert measure_fidelity(teacher, student, np.array([1])).kl == pytest.approx(1000.0)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(seed=st.integers(0, 10_000), samples=st.integers(1, 30), classes=st.integers(1, 6))
def test_a_student_identical_to_its_teacher(seed: int, samples: int, classes: int) -> None:
    logits = draw_logits(seed, samples, classes)
    labels = np.random.default_rng(seed).integers(0, classes, samples)
    result = measure_fidelity(logits, logits, labels)
    assert (result.agreement, result.kl) == (1.0, 0.0)
    assert result.agreement_on_errors == (1.0 if result.teacher_errors else None)
    assert set(result.accuracy_change) <= {0.0, None}
    assert result.list_lost_most(3) == []
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_a_perfect_teacher_has_no_errors_to_repeat() -> None:
    result = measure_fidelity(TEACHER[:1], STUDENT[:1], LABELS[:1])
    assert result.agreement_on_errors is None
    assert "agreement_on_errors" in result.notes


def test_lost_most_lists_only_losing_classes() -> None:
    labels = np.repeat([0, 1, 2, 3], 2)
    right = np.eye(5, dtype=np.float32)[labels]
    student = right.copy()
    student[[2, 4, 5, 6]] = np.eye(5)[4]  # class 1 loses a half, 2 all, 3 a half
    result = measure_fidelity(right, student, labels)
    assert result.list_lost_most(5) == [2, 1, 3]
    assert result.list_lost_most(1) == [2]
    with pytest.raises(ValueError, match="k must be"):
        result.list_lost_most(0)


@pytest.mark.parametrize(
    ("student", "labels", "message"),
    [
        (STUDENT[:, :2], LABELS, "same classes"),
        (STUDENT[:4], LABELS, "4 integers"),
        (STUDENT, LABELS[:4], "5 integers"),
        (STUDENT, LABELS.astype(float), "integers"),
        (STUDENT, LABELS + 2, "lie in"),
        (STUDENT * np.float32("nan"), LABELS, "finite"),
    ],
)
def test_wrong_input_is_named(student: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_fidelity(TEACHER, student, labels)


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="N >= 1"):
        measure_fidelity(TEACHER[:0], STUDENT[:0], LABELS[:0])
