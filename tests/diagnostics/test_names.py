from __future__ import annotations

from diagnostics.names import focus, is_first, listed, method_of


def test_a_seed_stands_behind_the_method_of_all_but_the_first() -> None:
    assert (method_of("kd/3"), method_of("two_stage")) == ("kd", "two_stage")
    assert is_first("kd") and not is_first("kd/1")


def test_the_model_in_question_is_two_stage_or_what_there_is() -> None:
    assert focus(["kd", "two_stage", "crd"]) == "two_stage"
    assert focus(["student"]) == "student"


def test_listed() -> None:
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
