from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.reading import load_config
from errors import UserError
from study.grid import Shard, point_names, points_of, runs_of
from tests.study.small_study import STUDY


def test_a_grid_is_a_union_of_products_without_repetition():
    grid = [{"b.x": [1, 2], "a.y": ["p", "q"]}, {"b.x": [2], "a.y": ["q"]}, {"a.y": ["r"]}]
    points = points_of(grid)
    assert len(points) == 5 and {"a.y": "r"} in points and points.count({"b.x": 2, "a.y": "q"}) == 1
    assert list(points[0]) == ["b.x", "a.y"]
    assert points_of([]) == [{}]
    with pytest.raises(UserError, match="a.y has no values"):
        points_of([{"a.y": []}])


def test_names_say_a_word_alone_only_where_it_tells():
    grid = [
        {
            "shortcut.cue": ["patch"],
            "kd.alpha": [0.5],
            "shortcut.teacher": ["biased"],
            "shortcut.students": ["biased"],
        }
    ]
    assert point_names(points_of(grid)) == ["patch-alpha_0.5-teacher_biased-students_biased"]
    both = points_of([{"student.arch": ["resnet8"], "teacher.arch": ["resnet8", "a/b: c"]}])
    assert point_names(both) == ["student.arch_resnet8-teacher.arch_resnet8", "student.arch_resnet8-a_b_c"]
    alike = point_names([{"kd.head": "a b"}, {"kd.head": "a/b"}])
    assert len(set(alike)) == 2 and all(set(name) <= set("ab_-01") for name in alike)


def test_each_run_has_its_seed_and_its_point(tiny_config):
    config = load_config(tiny_config, [*STUDY, "seeds=[3, 5]"])
    runs = runs_of(config)
    assert len(runs) == len({run.name for run in runs}) == 16
    run = runs[1]
    assert run.name == "conflicting_0.1-teacher_biased-students_biased-seed5" and run.config.seeds == [5]
    assert (run.config.teacher.seed, run.config.shortcut.seed, run.config.study.grid) == (5, 5, [])
    assert [run.config.shortcut.conflicting for run in runs] == [0.1] * 8 + [0.3] * 8
    assert [run.name for run in runs_of(load_config(tiny_config, ["study.grid=[]"]))] == ["seed0"]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.integers(0, 6), max_size=30), st.integers(1, 9))
def test_shards_cover_everything_once_and_keep_groups_together(groups, count):
    runs = list(enumerate(groups))
    parts = [Shard(number, count).take(runs, lambda run: run[1]) for number in range(1, count + 1)]
    assert sorted(run for part in parts for run in part) == runs
    assert all(len({number for number, part in enumerate(parts) if run in part}) == 1 for run in runs)
    homes = [{run[1] for run in part} for part in parts]
    assert sum(map(len, homes)) == len(set(groups))
    assert max(map(len, homes)) - min(map(len, homes)) <= 1
