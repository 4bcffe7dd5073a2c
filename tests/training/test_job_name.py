from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Config
from configs.stages import METHODS
from training.job_name import TEACHER, JobName, baseline, needs, read_label, stage1, stage1_of, stage2

NAMES = st.one_of(
    st.builds(baseline, st.integers(0, 9), st.sampled_from(METHODS)),
    st.builds(stage1, st.integers(0, 9), st.from_regex(r"[a-z0-9_]*", fullmatch=True)),
    st.builds(stage2, st.integers(0, 9), st.from_regex(r"[a-z0-9_]*", fullmatch=True)),
)
VARIANTS = {
    "own": {"crd": {"mode": "instance"}},
    "head": {"kd": {"train": "head"}},
    "llr": {"kd": {"train": "head", "features": "teacher"}},
    "again": {"kd": {"train": "head", "teacher_head": "llr"}},
    "of_kd": {"kd": {"train": "head", "features": "kd"}},
    "blank": {"kd": {"train": "head", "features": "random"}},
}
CONFIG = Config.model_validate({"variants": VARIANTS})


@given(NAMES)
def test_a_folder_is_read_back_as_the_job_that_named_it(name: JobName) -> None:
    assert name.seed is not None and read_label(name.path.name, name.seed) == name
    assert name.path.parts == (f"seed{name.seed}", name.label)


def test_names_as_they_stand_on_disk_and_are_read_by_a_person() -> None:
    assert (str(TEACHER.path), TEACHER.title) == ("teacher", "teacher")
    assert stage2(3, "head").path.as_posix() == "seed3/stage2_head" and stage2(3).title == "stage2 seed 3"
    assert baseline(0, "crd_kd").title == "crd_kd seed 0"
    assert read_label("eval", 0) is None and read_label("stage3", 0) is None


def test_a_variant_shares_stage_1_where_it_changes_nothing_in_it() -> None:
    assert stage1_of(CONFIG, 2, "head") == stage1_of(CONFIG, 2) == stage1(2)
    assert stage1_of(CONFIG, 2, "own") == stage1(2, "own")


def test_what_each_job_starts_from() -> None:
    found = {name: needs(CONFIG, stage2(1, name)) for name in ("", *VARIANTS)}
    assert found == {
        "": [stage1(1)],
        "own": [stage1(1, "own")],
        "head": [stage1(1)],
        "llr": [],
        "again": [stage1(1), stage2(1, "llr")],
        "of_kd": [baseline(1, "kd")],
        "blank": [],
    }
    assert needs(CONFIG, TEACHER) == needs(CONFIG, baseline(0, "kd")) == needs(CONFIG, stage2(0, "gone")) == []
