"""Of settings/methods.py: every form in which a config may give a method, and the stages that it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from errors import UserError
from settings.methods import list_shipped, load_shipped, normalise_methods
from settings.reading import load_config
from settings.schema import Config
from settings.stages import Stage


def read(text: str = "", *overrides: str, folder: Path) -> Config:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


@pytest.fixture
def stages(tmp_path: Path):
    """`stages("{kd: {}}", "training.epochs=8")`: the stages of each method of a config."""

    def make(methods: str, *overrides: str) -> dict[str, tuple[Stage, ...]]:
        return read(f"methods: {methods}", *overrides, folder=tmp_path).stages

    return make


def get_weights(stage: Stage) -> dict[str, float]:
    return {name: use.weight for name, use in stage.losses.items()}


@pytest.mark.parametrize("name", list_shipped())
def test_a_shipped_method_needs_nothing_but_its_name(stages, name: str) -> None:
    assert stages(f"[{name}]") == stages(f"{{{name}: }}") == stages(f"{{{name}: {{}}}}")
    assert sum(stage.epochs for stage in stages(f"[{name}]")[name]) == 30  # the whole budget
    assert (Path(__file__).parents[2] / "configs" / "methods" / f"{name}.yaml").read_text().startswith("# ")


def test_shipped_methods_are_what_their_papers_say(stages) -> None:
    found = stages("[scratch, kd, crd, crd_kd, two_stage]")
    assert {name: [get_weights(one) for one in method] for name, method in found.items()} == {
        "scratch": [{"ce": 1.0}],
        "kd": [{"ce": 0.1, "kl": 0.9}],
        "crd": [{"ce": 1.0, "crd": 0.8}],
        "crd_kd": [{"ce": 0.1, "kl": 0.9, "crd": 0.8}],
        "two_stage": [{"crd": 1.0}, {"kl": 0.9, "ce": 0.1}],
    }
    assert all(method[0].train == "all" for name, method in found.items() if name != "two_stage")
    first, second = found["two_stage"]
    assert (first.train, second.train, second.feature_lr) == ("features", "last_block", 1e-5)
    assert (first.epochs, second.epochs) == (22, 8)  # a quarter of 30 for the second
    assert (second.optimizer.name, second.optimizer.lr, second.optimizer.schedule) == ("adam", 1e-4, "constant")


def test_a_list_chooses_methods_in_order(stages) -> None:
    assert list(stages("[two_stage, kd]")) == ["two_stage", "kd"]
    assert list(stages("{kd: {}, crd: {}, mine: {base: kd}}", "methods=[mine, kd]")) == ["mine", "kd"]


def test_a_list_of_stages_is_complete(stages) -> None:
    text = "{kd: [{losses: {ce: 1}, epochs: 3}, {train: head, losses: {ce: }}]}"
    first, second = stages(text)["kd"]
    assert get_weights(first) == {"ce": 1.0} == get_weights(second)  # nothing of the shipped one is below it
    assert (first.epochs, second.epochs, first.train, second.train) == (3, 27, "all", "head")


@pytest.mark.parametrize(
    "text",
    [
        "{kd: [{losses: {ce: 1}}]}",
        "{mine: {losses: {ce: 1}}}",
        "{mine: {stage1: {losses: {ce: 1}}, stage2: {losses: {kl: 2}, epochs: 0.5}}}",
        "{two_stage: {optimizer: {lr: 0.2}, stage2: {losses: {ce: false}}}}",
        "{head: {base: two_stage, epochs: 5, stage2: {train: head}}, two_stage: {}}",
        "{twin: {twin_of: two_stage, losses: {crd: 2}}, two_stage: {}}",
        "{twin: {twin_of: two_stage, refit: head}, two_stage: {}}",
    ],
)
def test_a_written_config_reads_back(text: str) -> None:
    config = Config.model_validate({"methods": yaml.safe_load(text)})
    again = Config.model_validate(config.model_dump(mode="json"))
    assert again == config and again.stages == config.stages
    assert normalise_methods(config.methods, {}) == config.methods


def test_sections_change_one_stage_or_all(stages) -> None:
    method = stages(
        "{two_stage: {batch_size: 8, optimizer: {lr: 0.2}, stage2: {optimizer: {lr: 0.3}, train: all}}}"
    )
    first, second = method["two_stage"]
    assert (first.batch_size, second.batch_size) == (8, 8)
    assert (first.optimizer.lr, second.optimizer.lr, second.optimizer.name) == (0.2, 0.3, "adam")
    assert (first.train, second.train) == ("features", "all")
    added = stages("{two_stage: {stage3: {losses: {ce: 1}, epochs: 2}}}")["two_stage"]
    assert [stage.epochs for stage in added] == [20, 8, 2] and added[2].train == "all"


def test_a_method_builds_on_another_wherever_that_stands(stages) -> None:
    text = "{late: {base: early, stage2: {train: head}}, early: {base: two_stage, stage1: {epochs: 4}}}"
    late, early = stages(text)["late"], stages(text)["early"]
    assert late[0] == early[0] and late[0].epochs == 4
    assert (early[1].train, late[1].train) == ("last_block", "head")
    mine = stages("{mine: {base: kd, losses: {kl: 2}}, kd: {losses: {kl: 3}}}")
    assert get_weights(mine["mine"][0]) == {"ce": 0.1, "kl": 2.0}
    assert get_weights(stages("{mine: {base: kd, losses: {ce: 1}}}")["mine"][0]) == {
        "ce": 1.0,
        "kl": 0.9,
    }  # the shipped


def test_false_removes_a_loss_null_weighs_one(stages) -> None:
    assert get_weights(stages("{kd: {losses: {kl: false, crd: }}}")["kd"][0]) == {"ce": 0.1, "crd": 1.0}
    assert get_weights(stages("{mine: {base: kd, losses: {kl: false}}}")["mine"][0]) == {"ce": 0.1}
    assert get_weights(stages("{kd: {losses: {kl: 0}}}")["kd"][0]) == {"ce": 0.1, "kl": 0.0}  # which is reported
    use = stages("{kd: {losses: {kl: {ramp_up: 3, temperature: 2}}}}")["kd"][0].losses["kl"]
    assert (use.weight, use.ramp_up, use.fade, use.options) == (0.9, 3, False, {"temperature": 2})


def test_stages_share_loss_options_without_their_own(stages) -> None:
    text = "{kd: {losses: {kl: {temperature: 3}}}, mine: {base: kd}, plain: {losses: {kl: 1}}}"
    shared = ("losses.kl.temperature=2", "losses.kl.other=5")
    found = {name: method[0].losses["kl"].options for name, method in stages(text, *shared).items()}
    assert found == {
        "kd": {"temperature": 3, "other": 5},
        "mine": {"temperature": 3, "other": 5},
        "plain": {"temperature": 2, "other": 5},
    }


def test_a_twin_trains_all_losses_at_once(stages) -> None:
    text = "{at_once: {twin_of: staged, batch_size: 4}, staged: {base: two_stage, upweight_errors_of: kd}, kd: {}}"
    (twin,) = stages(text)["at_once"]
    assert get_weights(twin) == {"crd": 1.0, "kl": 0.9, "ce": 0.1}
    assert (twin.train, twin.epochs, twin.batch_size) == ("all", 30, 4)
    assert twin.optimizer == Stage().optimizer  # that of the defaults, of no single stage
    assert (twin.upweight_errors_of, twin.feature_lr) == ("kd", None)


def test_a_refit_twin_has_the_epochs_of_its_method_and_a_new_head(stages) -> None:
    text = "{refit: {twin_of: two_stage, refit: head}, head: {base: two_stage, stage2: {train: head}}}"
    found = stages(text)
    first, second = found["refit"]
    assert get_weights(first) == {"crd": 1.0, "kl": 0.9, "ce": 0.1} and first.train == "all"
    assert second == found["head"][1].model_copy(update={"reset_head": True})
    assert [stage.epochs for stage in found["refit"]] == [stage.epochs for stage in found["head"]] == [22, 8]
    given = "{mine: [{train: features, losses: {crd: 1}, epochs: 9}, {losses: {ce: 1}, upweight_errors_of: kd}], "
    first, second = stages(given + "kd: {}, refit: {twin_of: mine, refit: head}}")["refit"]
    assert (first.epochs, second.epochs) == (9, 21)
    assert (first.upweight_errors_of, second.upweight_errors_of) == (None, "kd")


@pytest.mark.parametrize(
    "text", ["{base: kd, refit: head}", "{twin_of: kd, refit: head}", "{twin_of: kd, refit: all}"]
)
def test_what_has_nothing_to_refit_is_refused(stages, text: str) -> None:
    with pytest.raises(UserError, match="methods.mine: refit"):
        stages(f"{{mine: {text}, kd: {{}}}}")


def test_false_leaves_a_method_of_the_base_out(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("methods: {kd: {epochs: 3}, crd: }", encoding="utf-8")
    config = read("base: base.yaml\nmethods: {kd: false, scratch: }", folder=tmp_path)
    assert list(config.methods) == ["crd", "scratch"]
    assert read("base: base.yaml\nmethods: {kd: }", folder=tmp_path).stages["kd"][0].epochs == 3
    chosen = read("base: base.yaml\nmethods: [kd, scratch]", folder=tmp_path)
    assert list(chosen.methods) == ["kd", "scratch"] and chosen.stages["kd"][0].epochs == 3


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (("null", "0.25"), (15, 5)),
        (("0.25", "null"), (5, 15)),
        (("0.5", "0.5"), (10, 10)),
        (("7", "null"), (7, 13)),
        (("7", "9"), (7, 9)),  # said for both: what they say
        (("7", "40"), (7, 40)),
        (("null", "2.0"), (18, 2)),
        (("null", "0.001"), (19, 1)),
    ],
)
def test_stages_share_the_budget(stages, epochs, expected) -> None:
    first, second = epochs
    text = f"{{two_stage: {{stage1: {{epochs: {first}}}, stage2: {{epochs: {second}}}}}}}"
    found = stages(text, "training.epochs=20")["two_stage"]
    assert tuple(stage.epochs for stage in found) == expected


def test_defaults_of_a_stage_are_those_of_training(stages) -> None:
    settings = ("training.batch_size=8", "training.optimizer.gamma=0.5", "data.val_fraction=0.5")
    found = stages(
        "[kd, two_stage]", *settings, "training.early_stopping={patience: 2}", "training.selection_epochs=3"
    )
    for stage in (found["kd"][0], *found["two_stage"]):
        assert (stage.batch_size, stage.optimizer.gamma, stage.selection_epochs) == (8, 0.5, 3)
        assert stage.early_stopping is not None and stage.early_stopping.patience == 2


WRONG = r"""
{kd: 3} => methods.kd: .*dictionary.*not 3
[kd, 3] => methods: .*dictionary
{kd: [3]} => methods.kd: stage1 is 3, give a section such as {losses: {ce: 1}}
{kd: {stage1: 3}} => methods.kd: stage1 is 3, give a section
{kd: {stage3: {}}} => methods.kd: stage3 comes without stage2
{mine: {stage2: {losses: {ce: 1}}}} => methods.mine: stage2 comes without stage1
{mine: {}} => methods.mine: it has no stages, and none is shipped by this name: at,
{mine: {base: nope}} => methods.mine: there is no method nope: mine, at,
{mine: {twin_of: nope}} => methods.mine: there is no method nope
{a: {base: b}, b: {base: c}, c: {base: a}} => methods.a: it builds on itself: a -> b -> c -> a
{a: {twin_of: a}} => methods.a: it builds on itself: a -> a
{a: {twin_of: two_stage, stage1: {}}} => methods.a: twin_of gives its stages, leave out base and
{a: {twin_of: two_stage, base: kd}} => methods.a: twin_of gives its stages, leave out base and
{two_stage: {stage2: {epochs: 30}}} => two_stage: stage1 has no epochs, and the other stages leave none of
{two_stage: {epochs: 0.6}} => methods.two_stage: its stages' shares of training.epochs=30 are more
{two_stage: {stage2: {epochs: null}}} => methods.two_stage: more than one stage has no epochs
{kd: {epochs: 2.5}} => methods.kd.stage1.epochs: .*fractional part, not 2.5
{kd: {epochs: 0}} => methods.kd.stage1.epochs: .*, not 0
{kd: {losses: 3}} => methods.kd.stage1.losses: .*dictionary.*, not 3
{kd: {losses: {ce: false, kl: false}}} => methods.kd.stage1.losses:
{kd: {optimizer: {warmup: 30}}} => methods.kd.stage1: optimizer.warmup=30 leaves nothing of 30 epochs
"""


@pytest.mark.parametrize("line", WRONG.strip().splitlines())
def test_wrong_methods_are_named(stages, line: str) -> None:
    methods, message = line.split(" => ")
    with pytest.raises(UserError, match=message):
        stages(methods)


def test_reading_a_shipped_method_changes_none(stages) -> None:
    before = load_shipped("kd")
    stages("{kd: {losses: {kl: 5, crd: 1}, batch_size: 3}}")
    assert load_shipped("kd") == before
