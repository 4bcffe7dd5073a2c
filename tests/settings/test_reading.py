"""Of settings/reading.py, and settings/images.py, settings/networks.py, settings/schema.py, settings/stages.py,
settings/study.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from errors import UserError
from settings.loss_options import fill_losses, list_options
from settings.merge import flatten
from settings.reading import (
    STAGE_N,
    find_differing_keys,
    format_options,
    list_fields,
    list_unused,
    load_config,
    load_written,
    to_yaml,
)
from settings.schema import Config
from settings.section import iterate_fields
from settings.stages import LossUse, Stage
from settings.study import Hypothesis

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent != CONFIGS / "methods")
PAIRS = {"resnet34_resnet20", "resnet50_resnet32", "resnet18_resnet8", "resnet34_resnet18", "resnet50_resnet20"}
TWO = "methods: [two_stage]"


def load(folder: Path, text: str, *overrides: str) -> Config:
    """Read a config as the commands do, options of losses included."""
    return load_config(_write(folder, text), overrides, fill_losses)


def _write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_files_load_and_round_trip(path: Path, tmp_path: Path) -> None:
    config = fill_losses(load_config(path))
    assert load(tmp_path, to_yaml(config)) == config
    assert config.stages or path.stem == "common"
    if path.parent.name == "cifar100" and path.stem != "common":
        assert f"{config.teacher.arch}_{config.student.arch}" == path.stem and path.stem in PAIRS
        assert config.name == f"cifar100_{path.stem}"


def test_paper_settings_are_the_published_ones() -> None:
    config = fill_losses(load_config(CONFIGS / "paper" / "bank.yaml"))
    first, second = config.stages["two_stage"]
    crd = config.losses["crd"] | first.losses["crd"].options
    assert (crd["dim"], crd["num_negatives"], crd["mode"], crd["objective"]) == (256, 16384, "exact", "nce")
    assert (crd["temperature"], crd["bank_momentum"], crd["bank_init"]) == (0.1, 0.5, "random")
    assert crd["taps"]["last"] > crd["taps"]["penultimate"]
    assert (first.train, first.optimizer.name, first.optimizer.lr) == ("features", "sgd", 0.03)
    assert (first.optimizer.momentum, first.optimizer.schedule) == (0.9, "exponential")
    assert {name: use.weight for name, use in second.losses.items()} == {"kl": 1.0}
    assert (config.losses["kl"]["temperature"], second.optimizer.name, second.optimizer.lr) == (4.0, "adam", 1e-4)
    assert (second.train, second.feature_lr, config.data.split) == ("last_block", 1e-5, 0.7)


@pytest.mark.parametrize(
    ("name", "student", "weights", "rates", "objective"),
    [
        ("bank", "resnet20", {"kl": 1.0}, (0.03, 1e-4, 1e-5), "nce"),
        ("equation", "resnet20", {"kl": 1.0}, (0.03, 1e-4, 1e-5), "infonce"),
        ("text", "resnet20", {"kl": 0.9, "ce": 0.1}, (0.03, 1e-4, 1e-5), "nce"),
        ("readme", "resnet18", {"kl": 0.9, "ce": 0.1}, (0.05, 1e-3, 1e-3), "nce"),
    ],
)
def test_each_reading_of_the_paper(
    name: str, student: str, weights: dict[str, float], rates: tuple[float, ...], objective: str
) -> None:
    config = fill_losses(load_config(CONFIGS / "paper" / f"{name}.yaml"))
    for method in ("two_stage", "frozen"):
        first, second = config.stages[method]
        assert {loss: use.weight for loss, use in second.losses.items()} == weights
        assert (first.optimizer.name, second.optimizer.name) == ("sgd", "adam")
        assert (first.optimizer.lr, second.optimizer.lr, second.feature_lr) == rates
    assert {loss: use.weight for loss, use in config.stages["kd"][0].losses.items()} == weights
    assert (config.student.arch, config.losses["crd"]["objective"]) == (student, objective)
    text = (CONFIGS / "paper" / f"{name}.yaml").read_text(encoding="utf-8")
    assert "reading of" in text and (name == "bank" or len(text.splitlines()) < 15)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(_write(tmp_path, "")) == Config() and Config().stages == {}
    completed = load(tmp_path, "")  # of the teacher's cross-entropy
    assert completed == Config(losses={"ce": {"label_smoothing": 0.0, "prior": 0.0}})


def test_a_partial_section_keeps_its_own_defaults(tmp_path: Path) -> None:
    text = "training: {optimizer: {gamma: 0.7}}\nmethods: {two_stage: {optimizer: {lr: 0.2}}}"
    config = load(tmp_path, text)
    first, second = (stage.optimizer for stage in config.stages["two_stage"])
    assert (first.lr, first.schedule, first.gamma) == (0.2, "cosine", 0.7)
    assert (second.lr, second.name, second.gamma) == (0.2, "adam", 0.7)
    assert config.teacher.optimizer == Config().teacher.optimizer
    shorter = f"training: {{optimizer: {{gamma: 0.7}}}}\n{TWO}"
    assert load(tmp_path, shorter, "methods.two_stage.optimizer.lr=0.2") == config


WRONG = r"""
losses: {crd: {temprature: 1}} => unknown key losses.crd.temprature, did you mean 'losses.crd.temperature'
methods: {kd: {optimizer: {lrr: 1}}} => key methods.kd.stage1.optimizer.lrr, did you mean '.*.optimizer.lr'
methods: {kd: {stage1: {trian: head}}} => key methods.kd.stage1.trian, did you mean 'methods.kd.stage1.train'
methods: {kd: {loss: 1}} => unknown key methods.kd.stage1.loss, did you mean 'methods.kd.stage1.losses'
methods: {kd: {early_stopping: {until: 1}}} => stopping.until: .*stopping has watch, patience, min_delta
studnt: {arch: resnet8} => unknown key studnt, did you mean 'student'
seed: [1] => unknown key seed, did you mean 'seeds'
training: {lr: 1} => unknown key training.lr, did you mean 'training.optimizer.lr'\?
training: {schedul: 1} => unknown key training.schedul: training has batch_size, optimizer, .*, epochs
training: {cached_views: 1} => unknown key training.cached_views, did you mean 'teacher.cached_views'\?
student: {seed: 1} => unknown key student.seed, did you mean 'data.seed' or 'teacher.seed' or
foo: 1 => unknown key foo \(python
{losses: {crd: {taps: {last: 0, penultimate: 0}}}, methods: [two_stage]} => crd.taps: every weight is 0, give one
{losses: {crd: {negatives: batch}}, methods: [two_stage]} => losses.crd: negatives: batch needs objective: infonce
methods: {kd: {upweight_errors_of: dk}, crd: {}} => errors_of: dk is no method of this run: kd, crd
methods: {kd: {error_weight: 0}} => methods.kd.stage1.error_weight: .*, not 0
methods: {a: {base: kd, upweight_errors_of: b}, b: {base: kd, starts_from: a}} => methods.a: .* itself: a -> b -> a
methods: {a: {starts_from: teacher, train: head, teacher: a, losses: {ce: 1}}} => would wait for itself: a -> a
methods: {a: {base: kd, starts_from: b}} => methods.a.stage1.starts_from: b is no method
methods: {two_stage: {stage2: {starts_from: teacher}}} => stage2.starts_from: a later stage goes on
methods: {a: {base: kd, teacher: kd}, kd: {}} => a.stage1.teacher: kd does not start from the teacher
methods: {kd: {losses: {kl: much}}} => kd.stage1.losses.kl: .*, not 'much'
methods: {kd: {losses: {kl: {weight: much}}}} => losses.kl.weight: .*number.*, not 'much'
methods: {kd: {train: everything}} => train: .*'head', 'last_block' or 'all', not 'everything'
methods: {kd: {early_stopping: {patience: on}}} => early_stopping\.patience: true and false
methods: [fitnets] => methods.fitnets: it has no stages, and none .* by this name, did you mean 'fitnet'
methods: 3 => methods: .*not 3
methods: {stage1: {base: kd}} => methods.stage1: the name is taken
shortcut: {pairs: counterfactual} => shortcut: pairs: counterfactual needs a planted cue, .*: none
shortcut: {pairs: counterfactual, cue: file, file: a.csv} => pairs: counterfactual needs .*, with cue: file
{shortcut: {pairs: counterfactual, cue: tint}, teacher: {cached_views: 2}} => set teacher.cached_views=0
{data: {mix: mixup}, teacher: {cached_views: 2}} => data.mix: mixup needs a live teacher: set teacher.cached_views
{data: {mix: mixup}, methods: {two_stage: {stage2: {train: head}}}} => mixup needs methods.two_stage.stage2.train:
data: {mix: erasing, mix_strength: 1.5} => data: mix_strength 1.5 is a share of the area
data: {mean: [0.5, 0.5]} => data.mean:
data: {std: [0.5, 0.5, 0]} => data.std.2:
data: {mean: [125.3, 123.0, 113.9]} => data\.mean\.0: .*less than or equal to 1, not 125\.3
data: {crop: 32, image_size: 32} => data: crop 32 is a padding and must be smaller than image_size 32
student: {taps: [layer3.0]} => student.taps: .*dictionary
student: {taps: {Last: fc}} => student.taps.Last
teacher: {losses: {ce: many}} => teacher.losses.ce:
teacher: 3 => teacher: .*not 3
teacher: {epochs: yes} => teacher\.epochs: true and false .* are no value here
seeds: [true] => seeds: true and false
false => expected keys and values
[] => expected keys and values
"""


@pytest.mark.parametrize("line", WRONG.strip().splitlines())
def test_mistakes_are_named(tmp_path: Path, line: str) -> None:
    text, message = line.split(" => ")
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


def test_bases_merge_from_the_bottom(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "bottom.yaml").write_text(
        "name: bottom\nseeds: [1, 2]\nlosses: {crd: {dim: 8}}\n"
        "methods: {two_stage: {stage1: {optimizer: {lr: 0.5, gamma: 0.7}}}, kd: {}}"
    )
    (tmp_path / "inner" / "middle.yaml").write_text(
        "base: ../bottom.yaml\nname: middle\nmethods: {two_stage: {stage1: {epochs: 3}}, kd: false, crd: {}}"
    )
    text = "base: inner/middle.yaml\nseeds: [3]\nmethods: {two_stage: {stage1: {optimizer: {lr: 0.25}}}}"
    config = load(tmp_path, text)
    assert (config.name, config.seeds, config.losses["crd"]["dim"]) == ("middle", [3], 8)
    assert list(config.methods) == ["two_stage", "crd"]
    first = config.stages["two_stage"][0]
    assert (first.epochs, first.optimizer.lr, first.optimizer.gamma) == (3, 0.25, 0.7)


def test_a_shipped_file_is_a_base_from_anywhere(tmp_path: Path) -> None:
    config = load(tmp_path, "base: paper/bank.yaml\nmethods: [kd]")
    assert (config.teacher.arch, config.data.source, list(config.methods)) == ("resnet34", "cifar100", ["kd"])
    assert load(tmp_path, "base: digits.yaml\nname: other").data == load_config(CONFIGS / "digits.yaml").data
    (tmp_path / "digits.yaml").write_text("name: mine")  # what stands beside it comes first
    assert load(tmp_path, "base: digits.yaml") == load(tmp_path, "name: mine")


def test_circular_and_missing_bases_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("base: config.yaml")
    with pytest.raises(UserError, match="comes back to itself"):
        load(tmp_path, "base: other.yaml")
    with pytest.raises(UserError, match="comes back to itself"):
        load(tmp_path, "base: config.yaml")
    with pytest.raises(UserError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path, "base: nowhere.yaml")


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "training: {epochs: 5}\nmethods: [kd, two_stage]",
        "training.epochs=8",
        "teacher.optimizer.lr=1e-3",
        "data.flip=false",
        "data.root=/data/a=b",
        "student.taps={last: layer3.0}",
        "data.split=null",
        "name=digits-2",
    )
    assert (config.training.epochs, config.teacher.optimizer.lr, config.data.flip) == (8, 1e-3, False)
    assert (config.data.root, config.data.split) == (Path("/data/a=b"), None)
    assert (config.student.taps, config.name) == ({"last": "layer3.0"}, "digits-2")


def test_overrides_choose_add_and_change_methods(tmp_path: Path) -> None:
    text = "methods: {kd: {losses: {kl: 0.8}}, two_stage: {}}"
    config = load(
        tmp_path,
        text,
        "methods.two_stage.stage2.train=head",
        "methods.two_stage.stage2.losses.kl.temperature=2",
        "methods.kd.losses.ce=0.2",
        "methods.crd={}",
        "methods={late: {base: two_stage, stage2: {epochs: 3}}}",
        "methods.kd.losses.crd=0.5",
    )
    assert list(config.methods) == ["kd", "two_stage", "crd", "late"]
    first, second = config.stages["two_stage"]
    assert (first.train, second.train) == ("features", "head")
    assert second.losses["kl"].model_dump() == {
        **config.losses["kl"],
        "weight": 0.9,
        "ramp_up": 0,
        "fade": False,
        "through": "student",
        "temperature": 2,
    }
    weights = {name: use.weight for name, use in config.stages["kd"][0].losses.items()}
    assert weights == {"ce": 0.2, "kl": 0.8, "crd": 0.5}
    assert (config.stages["late"][0].epochs, config.stages["late"][1].epochs) == (27, 3)
    assert list(load(tmp_path, text, "methods=[crd, kd]").methods) == ["crd", "kd"]
    assert load(tmp_path, text, "methods=[crd, kd]").methods["kd"] == load(tmp_path, text).methods["kd"]
    assert list(load(tmp_path, text, "methods.kd=false").methods) == ["two_stage"]
    assert list(load(tmp_path, text, "methods.kd.losses.kl=false").stages["kd"][0].losses) == ["ce"]


WRONG_OVERRIDES = r"""
losses.crd.dim => write KEY=VALUE
losses.crd.dimm=3 => unknown key losses.crd.dimm, did you mean 'losses.crd.dim'
losses.crd.dim=0 => losses.crd.dim: Input should be greater than or equal to 1, not 0
name.first=3 => name is a value, not a section
seeds=[1 => not valid YAML at line 1
seeds=[1, 1] => seeds: each seed once
teacher.epochs=0 => teacher.epochs: .*, not 0
methods.kd.losses.crd.dimm=3 => unknown key methods.kd.stage1.losses.crd.dimm, did you mean '.*crd.dim'
methods.kd.losses.klm=3 => losses: there is no klm, did you mean 'kl'
methods.dk.train=head => there is no method dk, did you mean 'dkd'
methods.two_stge.stage2.train=head => there is no method two_stge, did you mean 'two_stage'
methods.dkdd={} => methods.dkdd: it has no stages, .*, did you mean 'dkd'
"""


@pytest.mark.parametrize("line", WRONG_OVERRIDES.strip().splitlines())
@pytest.mark.parametrize("other", [(), ("training.epochs=5",)])
def test_wrong_overrides_are_named(tmp_path: Path, line: str, other: tuple[str, ...]) -> None:
    override, message = line.split(" => ")
    with pytest.raises(UserError, match=rf"^--set {re.escape(override)}: {message}"):
        load(tmp_path, "name: some", *other, override, *other)


def test_the_file_is_named_for_its_own_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/config.yaml: unknown key training.epohs"):
        load(tmp_path, "training: {epohs: 3}", "training.batch_size=5", "seeds=[1]")
    with pytest.raises(UserError, match=r"^--set data\.crop=40: data: crop 40 is a padding"):
        load(tmp_path, "name: a", "data.crop=40", "training.epochs=7")
    assert load(tmp_path, "name: a", "data.crop=40", "data.image_size=64").data.crop == 40


def test_named_overrides_are_told_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--seeds: seeds: each seed once"):
        load_config(_write(tmp_path, ""), {"--seeds": "seeds=[1, 1]"})


@pytest.mark.parametrize(
    ("text", "overrides", "methods", "expected"),
    [
        (
            TWO,
            ["losses.regression.ridge=0.5"],
            [],
            ["--set losses.regression.ridge=0.5: losses.regression has no"],
        ),
        (TWO, ["losses.crd.dim=8", "losses.ce.label_smoothing=0.1"], [], []),
        ("methods: [scratch]\nlosses: {crd: {dim: 8}}", [], [], ["config.yaml: losses.crd has no effect"]),
        ("base: digits.yaml\nmethods: [scratch]", [], [], []),  # a shipped file has options of crd
        (
            TWO,
            ["methods.kd.epochs=3", "methods=[two_stage]"],
            [],
            ["--set methods.kd.epochs=3: methods.kd has no"],
        ),
        ("methods: [kd, two_stage]", ["methods.kd.epochs=3"], ["two_stage"], ["methods.kd has no effect"]),
        ("methods: [kd, two_stage]", ["methods.kd.epochs=3"], ["kd"], []),
        ("methods: {kd: {}, a: {base: kd, starts_from: kd}}", ["methods.kd.epochs=3"], ["a"], []),  # a needs kd
        (TWO + "\nstudy: {grid: [{methods: [[kd]]}]}", ["losses.kl.temperature=2"], [], []),
    ],
)
def test_options_without_effect_are_listed(
    tmp_path: Path, text: str, overrides: list[str], methods: list[str], expected: list[str]
) -> None:
    path = _write(tmp_path, text)
    found = list(list_unused(load_config(path, overrides), path, overrides, methods))
    assert len(found) == len(expected) and all(part in line for part, line in zip(expected, found, strict=True))


@pytest.mark.parametrize("text", ["crd: {dim: 32}", "kd: {}", "baselines: {methods: [kd]}", "variants: {a: {}}"])
def test_runs_of_earlier_versions_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="written by an earlier version, whose runs are not read: train it again"):
        load_written(path)


def test_a_hypothesis_has_margin_or_exceeds(tmp_path: Path) -> None:
    two = "first: kd, second: crd"
    config = load(tmp_path, f"study: {{hypotheses: {{H1: {{{two}}}, H2: {{{two}, exceeds: -0.1}}}}}}")
    first, second = config.study.hypotheses.values()
    assert (first.margin, first.exceeds, second.margin, second.exceeds) == (0.02, None, None, -0.1)
    (tmp_path / "written.yaml").write_text(to_yaml(config))
    assert load_written(tmp_path / "written.yaml") == config
    with pytest.raises(UserError, match=r"study.hypotheses.H1: margin claims equivalence.*give one of them"):
        load(tmp_path, f"study: {{hypotheses: {{H1: {{{two}, margin: 0.1, exceeds: 0}}}}}}")
    with pytest.raises(UserError, match="study.hypotheses.H1.exceeds"):
        load(tmp_path, f"study: {{hypotheses: {{H1: {{{two}, exceeds: 5}}}}}}")
    with pytest.raises(UserError, match="study.hypotheses.H1.first: Field required"):
        load(tmp_path, "study: {hypotheses: {H1: {}}}")


def test_the_same_claim_is_known_again() -> None:
    equal, other = Hypothesis(first="kd", second="crd"), Hypothesis(first="kd", second="crd", exceeds=0)
    turned = {"first": "crd", "second": "kd"}
    assert equal.has_same_claim(equal.model_copy()) and equal.has_same_claim(equal.model_copy(update=turned))
    assert other.has_same_claim(other.model_copy()) and not other.has_same_claim(other.model_copy(update=turned))
    assert not equal.has_same_claim(other) and not equal.has_same_claim(
        equal.model_copy(update={"measure": "clean"})
    )


def test_differing_keys_ignore_seeds_and_new_methods(tmp_path: Path) -> None:
    first = load(tmp_path, TWO)
    assert find_differing_keys(first, load(tmp_path, f"seeds: [4, 5]\n{TWO}")) == []
    assert find_differing_keys(first, load(tmp_path, "methods: [kd, two_stage]")) == []
    other = load(
        tmp_path, "seeds: [4]\ndata: {seed: 1}\nmethods: {two_stage: {stage1: {optimizer: {lr: 0.2}}}, kd: {}}"
    )
    assert find_differing_keys(first, other) == ["data.seed", "methods.two_stage.stage1.optimizer.lr"]


def test_equal_stages_do_not_differ_however_written(tmp_path: Path) -> None:
    plain = load(tmp_path, "methods: [kd, two_stage]")
    shared = load(tmp_path, "losses: {kl: {temperature: 2}}\nmethods: [kd, two_stage]")
    assert find_differing_keys(plain, shared) == [
        "methods.kd.stage1.losses.kl.temperature",
        "methods.two_stage.stage2.losses.kl.temperature",
    ]
    written = "losses: {kl: {temperature: 4}}\nmethods: {kd: {epochs: 30, losses: {ce: 0.1}}, two_stage: {}}"
    assert find_differing_keys(plain, load(tmp_path, written)) == []  # defaults, written out
    unused = load(tmp_path, "losses: {regression: {ridge: 0.1}}\nmethods: [kd, two_stage]")
    assert find_differing_keys(plain, unused) == []
    longer = load(tmp_path, "training: {epochs: 40}\nmethods: [kd, two_stage]")
    assert find_differing_keys(plain, longer) == [
        "methods.kd.stage1.epochs",
        "methods.two_stage.stage1.epochs",
        "methods.two_stage.stage2.epochs",
    ]


def test_the_table_lists_every_option() -> None:
    own = [*iterate_fields(Stage(), STAGE_N), *iterate_fields(LossUse(), f"{STAGE_N}losses.LOSS.")]
    rows = [*iterate_fields(Config()), *own, *list_options()]
    known = {key: (default, text) for key, _, default, text in rows}
    lines = {line.split()[0]: line for line in format_options().splitlines()}
    assert lines.keys() <= known.keys() and len(lines) == format_options().count("\n") + 1
    for key, line in lines.items():
        default, description = known[key]
        assert str(default) in line or key.endswith(".losses")  # of which weights are shown
        assert len(description) > 10 and f"{description} [" in line and line.endswith("]")
    shared = {key.replace(STAGE_N, "training.") for key in known.keys() - lines.keys()}
    assert shared == {key for key in known if key.startswith("training.")} - {"training.epochs"}
    values = Config().model_dump()
    values["teacher"]["losses"] = {}  # by name, as those of a stage
    assert {key for key, *_ in list_fields()} == flatten(values).keys()
    by_key = {key: (kind, default) for key, kind, default, _ in list_fields()}
    assert by_key["teacher.batch_size"] == ("int", 128) and by_key["training.batch_size"] == ("int", 64)
    assert by_key["data.root"] == ("path", None)


def test_null_removes_the_options_of_a_base(tmp_path: Path) -> None:
    text = "student: {arch_options: {depth: 3}}"
    assert load(tmp_path, text, "student.arch_options=null").student.arch_options == {}
