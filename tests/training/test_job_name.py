from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.schema import Config
from training.job_name import (
    PHASES,
    TEACHER,
    JobName,
    count_earlier_epochs,
    find_job,
    find_last_job,
    find_phase,
    find_start,
    get_stage,
    is_known,
    list_jobs,
    list_method_jobs,
    list_sources,
    read_path,
    uses_teacher_network,
)

NAMES = st.builds(
    JobName, st.from_regex(r"[a-z0-9_]+", fullmatch=True), st.integers(0, 9), st.sampled_from(range(10))
)
TWO = {"base": "two_stage"}
METHODS = {
    "kd": {},
    "two_stage": {},
    "own": {**TWO, "stage1": {"losses": {"crd": {"mode": "instance"}}}},
    "head": {**TWO, "stage2": {"train": "head"}},
    "llr": {"starts_from": "teacher", "train": "head", "losses": {"ce": 1}},
    "again": {**TWO, "stage2": {"train": "head", "teacher": "llr"}},
    "of_kd": {"starts_from": "kd", "train": "head", "losses": {"ce": 1}},
    "blank": {"train": "head", "losses": {"ce": 1}},
    "weighted": {"base": "kd", "upweight_errors_of": "head"},
    "after": {"starts_from": "two_stage", "losses": {"ce": 1}},
    "three": {**TWO, "stage2": {"train": "head", "epochs": 3}, "stage3": {"losses": {"ce": 1}, "epochs": 2}},
    "early": [{"losses": {"kl": 0.9, "ce": 0.1}, "epochs": 30}, {"losses": {"ce": 1}, "epochs": 1}],
}
CONFIG = Config.model_validate({"methods": METHODS})
FIRST = JobName("two_stage", 1, 1)


def make_job(name: str, stage: int = 0) -> JobName:
    return JobName(name, 1, stage)


@given(NAMES)
def test_a_folder_is_read_back_as_its_job(name: JobName) -> None:
    assert name.seed is not None and read_path(Path(name.label), name.seed) == name
    assert name.path.parts == (f"seed{name.seed}", *name.label.split("/"))


def test_names_on_disk_and_for_readers() -> None:
    assert (str(TEACHER.path), TEACHER.title, TEACHER.key) == ("teacher", "teacher", "teacher")
    second = JobName("head", 3, 2)
    assert second.path.as_posix() == "seed3/head/stage2" and second.label == "head/stage2"
    assert (second.short, second.title) == ("head stage 2", "head stage 2 seed 3")
    assert (second.key, second.number) == ("methods.head.stage2", 2)
    only = JobName("crd_kd", 0)
    assert (only.title, only.key, only.number) == ("crd_kd seed 0", "methods.crd_kd.stage1", 1)
    assert read_path(Path("eval/stage0"), 0) is None and read_path(Path("a/b"), 0) is None
    assert read_path(Path("a/b/stage1"), 0) is None


def test_methods_share_their_first_stages() -> None:
    for name in ("two_stage", "head", "again"):
        assert find_job(CONFIG, name, 1, seed=1) == FIRST
    assert find_job(CONFIG, "own", 1, seed=1) == make_job("own", 1)
    assert list_method_jobs(CONFIG, "head", 1) == [FIRST, make_job("head", 2)]
    assert find_job(CONFIG, "three", 1, 1) == make_job("three", 1)  # of other epochs
    assert list_method_jobs(CONFIG, "kd", 1) == [make_job("kd")]
    assert list_method_jobs(CONFIG, "early", 1) == [
        make_job("kd"),
        make_job("early", 2),
    ]  # its first stage is all of kd
    assert find_last_job(CONFIG, "early", 1) == make_job("early", 2)


def test_equal_later_stages_are_not_shared() -> None:
    changed = Config.model_validate(
        {"methods": {"two_stage": {}, "own": {**TWO, "stage1": {"epochs": 20}, "stage2": {"epochs": 8}}}}
    )
    assert changed.stages["own"][1] == changed.stages["two_stage"][1]
    assert list_method_jobs(changed, "own", 0) == [JobName("own", 0, 1), JobName("own", 0, 2)]


def test_each_job_needs_its_sources() -> None:
    found = {name: list_sources(CONFIG, find_last_job(CONFIG, name, 1)) for name in METHODS}
    assert found == {
        "kd": [],
        "two_stage": [FIRST],
        "own": [make_job("own", 1)],
        "head": [FIRST],
        "llr": [],
        "again": [FIRST, make_job("llr")],
        "of_kd": [make_job("kd")],
        "blank": [],
        "weighted": [make_job("head", 2)],
        "after": [make_job("two_stage", 2)],
        "three": [make_job("three", 2)],
        "early": [make_job("kd")],
    }
    assert (
        list_sources(CONFIG, TEACHER)
        == list_sources(CONFIG, make_job("gone", 2))
        == find_start(CONFIG, make_job("gone"))
        == []
    )
    assert find_start(CONFIG, make_job("weighted")) == [] and find_start(CONFIG, make_job("again", 2)) == [FIRST]
    assert (
        not is_known(CONFIG, make_job("kd", 2)) and is_known(CONFIG, make_job("kd")) and is_known(CONFIG, TEACHER)
    )


def test_network_and_epochs_of_a_job() -> None:
    assert [name for name in METHODS if uses_teacher_network(CONFIG, find_last_job(CONFIG, name, 1))] == ["llr"]
    assert uses_teacher_network(CONFIG, TEACHER) and not uses_teacher_network(CONFIG, make_job("gone"))
    assert [count_earlier_epochs(CONFIG, make_job("three", number)) for number in (1, 2, 3)] == [0, 25, 28]
    assert count_earlier_epochs(CONFIG, TEACHER) == count_earlier_epochs(CONFIG, make_job("kd")) == 0
    assert (
        get_stage(CONFIG, make_job("three", 2)).train == "head"
        and get_stage(CONFIG, TEACHER) == CONFIG.teacher_stage
    )


def test_phases_follow_the_stage() -> None:
    jobs = (TEACHER, make_job("kd"), FIRST, make_job("head", 2), make_job("three", 3))
    assert [find_phase(one) for one in jobs] == ["teacher", "baselines", "crd", "kd", "kd"]
    assert {find_phase(one) for one in jobs} == set(PHASES) - {"all"}


def test_jobs_come_once_after_their_sources() -> None:
    everything = list_jobs(CONFIG, "all", 1, list(METHODS))
    assert len(everything) == len(set(everything))
    for position, one in enumerate(everything):
        assert set(list_sources(CONFIG, one)) <= set(everything[:position])
    assert set(everything) == {one for name in METHODS for one in list_method_jobs(CONFIG, name, 1)}
    by_phase = [one for phase in PHASES[1:4] for one in list_jobs(CONFIG, phase, 1, list(METHODS))]
    assert sorted(by_phase, key=everything.index) == everything


@pytest.mark.parametrize(
    ("methods", "phase", "expected"),
    [
        (["again"], "all", [FIRST, make_job("llr"), make_job("again", 2)]),
        (["again"], "kd", [make_job("again", 2)]),
        (["again"], "baselines", [make_job("llr")]),
        (["weighted"], "all", [FIRST, make_job("head", 2), make_job("weighted")]),
        (["kd", "of_kd"], "all", [make_job("kd"), make_job("of_kd")]),
        (["early"], "crd", []),  # its first stage is kd's only one
    ],
)
def test_chosen_methods_bring_what_they_need(methods, phase, expected) -> None:
    assert list_jobs(CONFIG, phase, 1, methods) == expected
