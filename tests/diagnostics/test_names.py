from __future__ import annotations

from diagnostics.names import find_staged, focus, is_first, listed, method_of


def test_a_seed_stands_behind_the_method_of_all_but_the_first() -> None:
    assert (method_of("kd/3"), method_of("two_stage")) == ("kd", "two_stage")
    assert is_first("kd") and not is_first("kd/1")
    assert method_of("two_stage stage 1") == "two_stage" and is_first("two_stage stage 1")


def test_the_model_in_question_is_two_stage_or_what_there_is() -> None:
    assert focus(["kd", "two_stage", "crd"]) == "two_stage"
    assert focus(["student"]) == "student" and focus(["kd", "mine"]) == "mine"


def test_the_staged_method_is_two_stage_or_the_last_of_several_stages() -> None:
    assert find_staged({"two_stage": "ab", "kd": "a", "mine": "abc"}) == "two_stage"
    assert find_staged({"other": "ab", "mine": "abc", "kd": "a"}) == "mine"
    assert find_staged({"two_stage": "a", "kd": "a"}) is None


def test_listed() -> None:
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
