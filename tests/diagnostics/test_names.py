from __future__ import annotations

from diagnostics.names import choose_main, find_staged, get_method, is_first, join_names


def test_a_seed_stands_behind_the_method_of_all_but_the_first() -> None:
    assert (get_method("kd/3"), get_method("two_stage")) == ("kd", "two_stage")
    assert is_first("kd") and not is_first("kd/1")
    assert get_method("two_stage stage 1") == "two_stage" and is_first("two_stage stage 1")


def test_the_model_in_question_is_two_stage_or_what_there_is() -> None:
    assert choose_main(["kd", "two_stage", "crd"]) == "two_stage"
    assert choose_main(["student"]) == "student" and choose_main(["kd", "mine"]) == "mine"


def test_the_staged_method_is_two_stage_or_the_last_of_several_stages() -> None:
    assert find_staged({"two_stage": "ab", "kd": "a", "mine": "abc"}) == "two_stage"
    assert find_staged({"other": "ab", "mine": "abc", "kd": "a"}) == "mine"
    assert find_staged({"two_stage": "a", "kd": "a"}) is None


def test_listed() -> None:
    assert [join_names(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
