from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import UserError
from settings.reading import load_config
from study.grid import Shard, describe_point, drop_key, list_points, list_runs
from tests.study.small_study import STUDY


def list_values(grid):
    return [point.values for point in list_points(grid)]


def list_names(grid):
    return [point.name for point in list_points(grid)]


def test_grid_is_a_union_of_products() -> None:
    grid = [{"b.x": [1, 2], "a.y": ["p", "q"]}, {"b.x": [2], "a.y": ["q"]}, {"a.y": ["r"]}]
    points = list_values(grid)
    assert len(points) == 5 and {"a.y": "r"} in points and points.count({"b.x": 2, "a.y": "q"}) == 1
    assert list(points[0]) == ["b.x", "a.y"]
    assert list_values([]) == [{}]
    with pytest.raises(UserError, match="a.y has no values"):
        list_points([{"a.y": []}])


def test_names_are_short_and_unique() -> None:
    grid = [
        {
            "shortcut.cue": ["patch"],
            "methods.kd.losses.kl.weight": [0.5],
            "shortcut.teacher": ["biased"],
            "shortcut.students": ["biased"],
        }
    ]
    assert list_names(grid) == ["patch-weight_0.5-teacher_biased-students_biased"]
    both = [{"student.arch": ["resnet8"], "teacher.arch": ["resnet8", "a/b: c"]}]
    assert list_names(both) == ["student.arch_resnet8-teacher.arch_resnet8", "student.arch_resnet8-a_b_c"]
    alike = list_names([{"kd.head": ["a b", "a/b"]}])
    assert len(set(alike)) == 2 and all(set(name) <= set("ab_-01") for name in alike)
    weights = [{"methods.kd.losses.kl.weight": [1], "methods.kd.losses.ce.weight": [2]}]
    assert list_names(weights) == ["kl.weight_1-ce.weight_2"]


def test_named_entries_name_their_points() -> None:
    arms = {"shortcut.teacher": ["biased", "unbiased"], "training.optimizer.lr": [0.1]}
    grid = [{"name": "slow", "training.optimizer.lr": [0.01]}, {"name": "fast", **arms}, {"training.epochs": [3]}]
    points = list_points(grid)
    assert [point.name for point in points] == ["slow", "fast-biased", "fast-unbiased", "epochs_3"]
    assert [point.label for point in points] == [
        "slow",
        "fast, teacher biased",
        "fast, teacher unbiased",
        "epochs 3",
    ]
    assert points[0].values == {"name": "slow", "training.optimizer.lr": 0.01} and "name" not in points[3].values
    with pytest.raises(UserError, match="lr 0.01 is in two entries, one of them with a name"):
        list_points([*grid[1:], {"training.optimizer.lr": [0.01]}, grid[0]])


def test_labels_show_and_drop_values() -> None:
    point = {"name": "a", "shortcut.teacher": "biased", "student.arch": "x", "teacher.arch": "y"}
    label = "a, teacher biased, student.arch x, teacher.arch y"
    assert describe_point(point) == label and describe_point({}) == "the only point"
    assert drop_key(label, "shortcut.teacher") == "a, student.arch x, teacher.arch y"
    assert drop_key(label, "teacher.arch") == "a, teacher biased, student.arch x"
    assert drop_key("teacher biased", "shortcut.teacher") == "the only point"
    assert drop_key("teacher", "shortcut.teacher") == "teacher"  # the name of an entry


def test_each_run_has_its_seed_and_its_point(tiny_config) -> None:
    config = load_config(tiny_config, [*STUDY, "seeds=[3, 5]"])
    runs = list_runs(config)
    assert len(runs) == len({run.name for run in runs}) == 16
    run = runs[1]
    assert run.name == "conflicting_0.1-teacher_biased-students_biased-seed5" and run.config.seeds == [5]
    assert (run.config.teacher.seed, run.config.shortcut.seed, run.config.study.grid) == (5, 5, [])
    assert run.config.study.hypotheses == {} and run.label == "conflicting 0.1, teacher biased, students biased"
    assert [run.config.shortcut.conflicting for run in runs] == [0.1] * 8 + [0.3] * 8
    assert [run.name for run in list_runs(load_config(tiny_config, ["study.grid=[]"]))] == ["seed0"]


def test_any_key_of_the_config_can_vary(tiny_config) -> None:
    entry = (
        "methods: [[kd, two_stage, mine], [scratch, mine]], methods.kd.stage1.losses.kl.weight: [3], "
        "losses.crd: [{temperature: 0.2}], training.optimizer.lr: [0.5], "
        "methods.mine: [[{train: features, losses: {crd: 1}}], {base: kd, losses: {ce: false}}]"
    )
    runs = list_runs(load_config(tiny_config, [f"study.grid=[{{{entry}}}]"]))
    assert len(runs) == 4
    first, second, _, last = (run.config for run in runs)
    assert list(first.stages) == ["kd", "two_stage", "mine"] and list(last.stages) == ["scratch", "mine"]
    assert first.stages["kd"][0].losses["kl"].weight == 3 and first.stages["kd"][0].losses["ce"].weight == 0.1
    assert first.stages["kd"][0].optimizer.lr == 0.5 and first.stages["two_stage"][1].optimizer.lr == 0.01
    assert first.losses["crd"] == {"num_negatives": 16, "dim": 8, "temperature": 0.2}
    assert list(first.stages["mine"][0].losses) == ["crd"] and list(second.stages["mine"][0].losses) == ["kl"]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("{shortcut.cue: patch}", "shortcut.cue is 'patch': give a list of values, .patch. for one"),
        ("{name: [a], seeds: [1]}", r"name \['a'\]"),
        ("{name: a/b, shortcut.cue: [patch]}", "name 'a/b': String should match pattern"),
        ("{name: a, shortcut.cue: [patch]}, {name: a, shortcut.cue: [tint]}", "two entries are named a"),
    ],
)
def test_malformed_entries_are_refused(tiny_config, grid, words) -> None:
    with pytest.raises(UserError, match=f"study.grid: {words}"):
        load_config(tiny_config, [f"study.grid=[{grid}]"])


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.integers(0, 6), max_size=30), st.integers(1, 9))
def test_shards_cover_runs_once_and_keep_groups(groups, count) -> None:
    runs = list(enumerate(groups))
    parts = [Shard(number, count).take(runs, lambda run: run[1]) for number in range(1, count + 1)]
    assert sorted(run for part in parts for run in part) == runs
    assert all(len({number for number, part in enumerate(parts) if run in part}) == 1 for run in runs)
    homes = [{run[1] for run in part} for part in parts]
    assert sum(map(len, homes)) == len(set(groups))
    assert max(map(len, homes)) - min(map(len, homes)) <= 1


def test_teachers_of_an_entry_are_one_point(tiny_config) -> None:
    config = load_config(
        tiny_config, ["study.grid=[{teacher.seed: [7, 8], student.arch: [resnet8]}]", "seeds=[0, 1]"]
    )
    runs = list_runs(config)
    assert [run.name for run in runs][:2] == ["teacher.seed_7-resnet8-seed0", "teacher.seed_7-resnet8-seed1"]
    assert {run.pooled.label for run in runs} == {"arch resnet8"}
    assert [run.teacher for run in runs] == ["teacher.seed 7"] * 2 + ["teacher.seed 8"] * 2
    assert [(run.config.teacher.seed, run.config.shortcut.seed, run.seed) for run in runs][1:3] == [
        (7, 7, 1),  # a teacher has seen one draw of cues, whatever the student's seed
        (8, 8, 0),
    ]


def test_one_teacher_an_entry_is_a_point_of_its_own() -> None:
    points = list_points([{"name": name, "teacher.checkpoint": [f"{name}.pt"]} for name in ("weak", "strong")])
    assert [point.drop_teacher().label for point in points] == ["weak", "strong"]
    assert not any(point.teacher for point in points)
    with pytest.raises(UserError, match="weak and strong differ in their teachers alone: write them in one entry"):
        list_points(
            [{"name": name, "teacher.seed": [2 * at, 2 * at + 1]} for at, name in enumerate(("weak", "strong"))]
        )


def test_hypotheses_leave_out_the_teacher(tiny_config) -> None:
    where = "study.hypotheses={H1: {first: kd, second: scratch, where: {teacher.seed: 0}}}"
    with pytest.raises(UserError, match="H1.where: the values of teacher.seed are teachers of one point"):
        list_runs(load_config(tiny_config, ["study.grid=[{teacher.seed: [0, 1]}]", where]))
