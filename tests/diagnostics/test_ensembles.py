from __future__ import annotations

import numpy as np
import pytest

from diagnostics.ensembles import average_probabilities, take_majority_vote


def compute_naive_vote(members, image):
    answers = [int(np.argmax(member[image])) for member in members]
    counts = {answer: answers.count(answer) for answer in answers}
    tied = [answer for answer, count in counts.items() if count == max(counts.values())]
    shares = [np.exp(m[image].astype(float)) / np.exp(m[image].astype(float)).sum() for m in members]
    return max(tied, key=lambda answer: sum(share[answer] for share in shares))


def test_votes_and_means_agree_with_loops() -> None:
    rng = np.random.default_rng(0)
    members = [rng.normal(size=(300, 4)).astype(np.float32) for _ in range(4)]  # four voters tie often
    assert take_majority_vote(members).tolist() == [compute_naive_vote(members, image) for image in range(300)]
    expected = sum(np.exp(m.astype(float)) / np.exp(m.astype(float)).sum(1, keepdims=True) for m in members) / 4
    assert average_probabilities(members) == pytest.approx(expected, abs=1e-12)


def test_three_that_err_apart_are_right_together() -> None:
    sure = np.log(np.array([0.9, 0.1], dtype=np.float32))
    members = [np.tile(sure, (3, 1)) for _ in range(3)]
    for number, member in enumerate(members):
        member[number] = np.log([0.45, 0.55])  # each is wrong on an image of its own
    assert take_majority_vote(members).tolist() == [0, 0, 0]
    assert average_probabilities(members)[0] == pytest.approx([(0.45 + 0.9 + 0.9) / 3, (0.55 + 0.1 + 0.1) / 3])


def test_two_have_no_majority_and_shapes_must_agree() -> None:
    one = np.zeros((2, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="needs 3 or more members, got 2"):
        take_majority_vote([one, one])
    with pytest.raises(ValueError, match="same images and classes"):
        average_probabilities([one, one[:1]])
