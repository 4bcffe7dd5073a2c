"""Of configs/reading.py, and configs/images.py, configs/networks.py, configs/schema.py, configs/section.py,
configs/stages.py, configs/study.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.reading import config_table, differing_keys, list_fields, load_config, load_written, to_yaml
from configs.schema import Config
from configs.stages import METHODS
from configs.study import Hypothesis
from errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))
PAIRS = {"resnet34_resnet20", "resnet50_resnet32", "resnet18_resnet8", "resnet34_resnet18", "resnet50_resnet20"}


def load(folder: Path, text: str, *overrides: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_files_load_and_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load(tmp_path, to_yaml(config)) == config
    if path.parent.name in ("cifar100", "paper") and path.stem != "common":
        assert f"{config.teacher.arch}_{config.student.arch}" == path.stem
        assert config.name == f"{path.parent.name}_{path.stem}"


def test_every_pair_is_shipped_twice() -> None:
    for folder in ("cifar100", "paper"):
        assert {path.stem for path in (CONFIGS / folder).glob("*.yaml")} == PAIRS | {"common"}


def test_paper_settings_are_the_published_ones() -> None:
    config = load_config(CONFIGS / "paper" / "resnet34_resnet20.yaml")
    crd, kd = config.crd, config.kd
    assert (crd.dim, crd.num_negatives, crd.mode, crd.objective) == (256, 16384, "exact", "nce")
    assert (crd.temperature, crd.bank_momentum, crd.bank_init) == (0.1, 0.5, "random")
    assert (crd.optimizer.name, crd.optimizer.lr, crd.optimizer.momentum) == ("sgd", 0.03, 0.9)
    assert crd.optimizer.schedule == "exponential"
    assert crd.lambda_last > crd.lambda_penultimate
    assert (kd.alpha, kd.temperature, kd.optimizer.name, kd.optimizer.lr) == (1.0, 4.0, "adam", 1e-4)
    assert (kd.train, kd.feature_lr, config.data.split) == ("last_block", 1e-5, 0.7)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()
    assert Config().baseline_epochs == Config().crd.epochs + Config().kd.epochs
    assert load(tmp_path, "baselines: {epochs: 3}").baseline_epochs == 3


def test_baselines_follow_stage_2_unless_they_say_otherwise(tmp_path: Path) -> None:
    followed = load(tmp_path, "kd: {alpha: 1, temperature: 2}")
    assert (followed.baseline_alpha, followed.baseline_temperature) == (1, 2)
    own = load(tmp_path, "baselines: {alpha: 0, temperature: 3}")
    assert (own.baseline_alpha, own.baseline_temperature) == (0, 3)
    assert (own.resolved().baselines.alpha, own.resolved().baselines.epochs) == (0, 30)


def test_a_partial_section_keeps_its_own_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "crd: {optimizer: {lr: 0.2}}\nkd: {optimizer: {lr: 0.2}}")
    assert (config.crd.optimizer.lr, config.crd.optimizer.schedule) == (0.2, "exponential")
    assert (config.kd.optimizer.lr, config.kd.optimizer.name) == (0.2, "adam")
    assert config.teacher.optimizer == Config().teacher.optimizer
    assert load(tmp_path, "", "crd.optimizer.lr=0.2").crd == config.crd


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crd: {temprature: 1}", "unknown key crd.temprature, did you mean 'crd.temperature'"),
        ("kd: {optimizer: {lrr: 1}}", "unknown key kd.optimizer.lrr, did you mean 'kd.optimizer.lr'"),
        ("studnt: {arch: resnet8}", "unknown key studnt, did you mean 'student'"),
        ("seed: [1]", "unknown key seed, did you mean 'seeds'"),
        ("crd: {lr: 1}", "unknown key crd.lr, did you mean 'crd.optimizer.lr'?"),
        ("crd: {alpha: 1}", "unknown key crd.alpha, did you mean 'kd.alpha' or 'baselines.alpha'?"),
        ("kd: {head_lr: 1}", "unknown key kd.head_lr \\(python"),  # nothing is near, so nothing is said
        ("crd: {queue: 1}", "unknown key crd.queue \\(python"),
        ("foo: 1", "unknown key foo \\(python"),
        ("crd: {temperature: 0}", "crd.temperature: .*greater than 0, not 0"),
        ("crd: {temperature: .inf}", "crd.temperature: .*finite"),
        ("crd: {lambda_last: -1}", "crd.lambda_last: "),
        ("crd: {lambda_last: .nan}", "crd.lambda_last: "),
        ("crd: {lambda_last: 0, lambda_penultimate: 0}", "crd: .*nothing to align"),
        ("crd: {bank_momentum: 1}", "crd.bank_momentum: "),
        ("crd: {num_negatives: 0}", "crd.num_negatives: "),
        ("crd: {negatives: batch}", "crd: negatives: batch needs objective: infonce"),
        ("crd: {errors_of: kd}", "crd: errors_of weights no losses from a bank: use negatives: batch, or"),
        ("variants: {a: {crd: {errors_of: kd}}}", "variants.a.crd: errors_of weights no losses from a bank"),
        ("baselines: {variants: {a: {baselines: {errors_of: kd}}}}", "variants.a.baselines: errors_of weights no"),
        ("kd: {errors_of: dk}", "kd.errors_of: dk is no end-to-end baseline of this run: scratch, kd"),
        ("kd: {errors_of: kd}\nbaselines: {methods: [crd]}", "kd.errors_of: kd is no end-to-end .* run: crd"),
        ("variants: {a: {kd: {errors_of: b}}}", "variants.a.kd.errors_of: b is no"),
        ("variants: {a: {kd: {error_weight: 0}}}", "variants.a.kd.error_weight: "),
        (
            "baselines: {methods: [scratch], errors_of: scratch}",
            "would wait for itself: scratch -> scratch",
        ),
        (
            "baselines: {methods: [], variants: {a: {method: kd, baselines: {errors_of: b}}, "
            "b: {method: kd, baselines: {errors_of: a}}}}",
            "baselines.variants.a.baselines.errors_of: a would wait for itself: a -> b -> a",
        ),
        ("baselines: {variants: {a: {crd: {errors_of: kd}}}}", "crd.errors_of is of stage 1, use baselines"),
        (
            "shortcut: {pairs: counterfactual}",
            "shortcut: pairs: counterfactual needs a planted cue, .*: none",
        ),
        (
            "shortcut: {pairs: counterfactual, cue: file, file: a.csv}",
            "shortcut: pairs: counterfactual needs a planted cue, with cue: file",
        ),
        (
            "shortcut: {pairs: counterfactual, cue: tint}\nteacher: {views: 2}",
            "shortcut.pairs: counterfactual needs a live teacher: set teacher.views=0",
        ),
        ("data: {mix: erasing, mix_strength: 1.5}", "data: mix_strength 1.5 is a share of the area"),
        ("data: {mix: mixup, mix_strength: 0}", "data.mix_strength: "),
        ("data: {mix: mixup}\nteacher: {views: 2}", "data.mix: mixup needs a live teacher: set teacher.views=0"),
        ("data: {mix: mixup}\nkd: {train: head}", "data.mix: mixup needs kd.train: last_block or all"),
        (
            "data: {mix: erasing}\nvariants: {a: {kd: {train: head}}}",
            "data.mix: erasing needs variants.a.kd.train: last_block or all",
        ),
        ("crd: {until: plateau}", "data.val_fraction > 0"),
        ("kd: {alpha: 1.5}", "kd.alpha: .*less than or equal to 1, not 1.5"),
        ("kd: {train: everything}", "kd.train: .*'head', 'last_block' or 'all'"),
        ("data: {split: 1}", "data.split: "),
        ("data: {mean: [0.5, 0.5]}", "data.mean: "),
        ("data: {std: [0.5, 0.5, 0]}", "data.std.2: "),
        ("student: {taps: [layer3.0]}", "student.taps: "),
        ("teacher: {epochs: many}", "teacher.epochs: .*integer.*not 'many'"),
        ("teacher: {epochs: 2.5}", "teacher.epochs: .*integer"),
        ("teacher: 3", "teacher: .*not 3"),
        ("baselines: {methods: [fitnet]}", "baselines.methods.0: "),
        ("baselines: {methods: [kd, crd, kd]}", "baselines.methods: a method is named twice"),
        ("student: {taps: [fc, fc]}", "student.taps: both taps are the same"),
        ("study: {hypotheses: {H1: {first: kd, second: kd}}}", "first and second are both kd"),
        ("seeds: []", "seeds: "),
        ("seeds: [1, 1]", "each seed once"),
        ("name: a/b", "name: "),
        ("[1, 2]", "expected keys and values"),
        ("crd: [1", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


def test_bases_merge_from_the_bottom(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "bottom.yaml").write_text(
        "name: bottom\nseeds: [1, 2]\ncrd: {dim: 8, optimizer: {lr: 0.5, gamma: 0.7}}"
    )
    (tmp_path / "inner" / "middle.yaml").write_text("base: ../bottom.yaml\nname: middle\ncrd: {epochs: 3}")
    config = load(tmp_path, "base: inner/middle.yaml\nseeds: [3]\ncrd: {optimizer: {lr: 0.25}}")
    assert (config.name, config.seeds, config.crd.dim, config.crd.epochs) == ("middle", [3], 8, 3)
    assert (config.crd.optimizer.lr, config.crd.optimizer.gamma) == (0.25, 0.7)


def test_bases_that_come_back_or_are_missing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("base: config.yaml")
    with pytest.raises(UserError, match="comes back to itself"):
        load(tmp_path, "base: other.yaml")
    with pytest.raises(UserError, match="comes back to itself"):
        load(tmp_path, "base: config.yaml")
    with pytest.raises(UserError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path, "base: nowhere.yaml")


def test_a_binary_file_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"\x80\x02\xff")
    with pytest.raises(UserError, match="not a text file"):
        load_config(tmp_path / "model.pt")


def test_overrides_are_yaml_values_and_win_over_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "kd: {alpha: 0.5}",
        "kd.alpha=1",
        "kd.optimizer.lr=1e-3",
        "data.flip=false",
        "data.root=/data/a=b",
        "student.taps=[layer2.0, layer3.0]",
        "data.split=null",
        "name=digits-2",
    )
    assert (config.kd.alpha, config.kd.optimizer.lr, config.data.flip) == (1.0, 1e-3, False)
    assert (config.data.root, config.data.split) == (Path("/data/a=b"), None)
    assert (config.student.taps, config.name) == (["layer2.0", "layer3.0"], "digits-2")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("crd.dim", "write KEY=VALUE"),
        ("crd.dimm=3", "unknown key crd.dimm, did you mean 'crd.dim'"),
        ("name.first=3", "name is a value, not a section"),
        ("seeds=[1", "--set seeds: not valid YAML"),
    ],
)
def test_overrides_that_do_not_fit_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, "name: some", override)


def test_a_run_of_an_earlier_version_is_read_and_a_new_file_with_its_keys_is_not(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("crd: {queue_length: 16384, dim: 32}\n")
    assert load_written(path).crd.dim == 32
    with pytest.raises(UserError, match="crd.queue_length"):
        load_config(path)


def test_the_one_hypothesis_of_an_earlier_version_is_the_first_and_a_new_file_is_told_the_new_key(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("study: {hypothesis: {first: kd, margin: 0.03}}\n")
    assert load_written(path).study.hypotheses == {"H1": Hypothesis(first="kd", margin=0.03)}
    with pytest.raises(UserError, match="unknown key study.hypothesis, did you mean 'study.hypotheses'"):
        load_config(path)
    path.write_text("study: {grid: [], hypothesis: null}\n")
    assert load_written(path) == Config()


def test_a_hypothesis_has_a_margin_or_what_it_exceeds(tmp_path: Path) -> None:
    config = load(tmp_path, "study: {hypotheses: {H1: {}, H2: {exceeds: -0.1}}}")
    first, second = config.study.hypotheses.values()
    assert (first.margin, first.exceeds, second.margin, second.exceeds) == (0.02, None, None, -0.1)
    (tmp_path / "written.yaml").write_text(to_yaml(config))
    assert load_written(tmp_path / "written.yaml") == config
    with pytest.raises(UserError, match=r"study.hypotheses.H1: margin claims equivalence.*give one of them"):
        load(tmp_path, "study: {hypotheses: {H1: {margin: 0.1, exceeds: 0}}}")
    with pytest.raises(UserError, match="study.hypotheses.H1.exceeds"):
        load(tmp_path, "study: {hypotheses: {H1: {exceeds: 5}}}")


def test_the_same_claim_is_known_again() -> None:
    equal, other = Hypothesis(first="kd", second="crd"), Hypothesis(first="kd", second="crd", exceeds=0)
    turned = {"first": "crd", "second": "kd"}
    assert equal.says(equal.model_copy()) and equal.says(equal.model_copy(update=turned))
    assert other.says(other.model_copy()) and not other.says(other.model_copy(update=turned))
    assert not equal.says(other) and not equal.says(equal.model_copy(update={"measure": "clean"}))


def test_differing_keys_ignore_the_training_seeds(tmp_path: Path) -> None:
    first = load(tmp_path, "")
    assert differing_keys(first, load(tmp_path, "seeds: [4, 5]")) == []
    other = load(tmp_path, "seeds: [4]\ndata: {seed: 1}\ncrd: {optimizer: {lr: 0.2}}")
    assert differing_keys(first, other) == ["data.seed", "crd.optimizer.lr"]


def test_a_followed_value_written_out_is_no_difference(tmp_path: Path) -> None:
    first, written = load(tmp_path, ""), load(tmp_path, "baselines: {alpha: 0.9, temperature: 4, epochs: 30}")
    assert differing_keys(first, written) == []
    assert differing_keys(first, load(tmp_path, "kd: {alpha: 0.5}")) == ["kd.alpha"]
    assert differing_keys(written, load(tmp_path, "kd: {alpha: 0.5}")) == ["kd.alpha", "baselines.alpha"]
    assert differing_keys(first, load(tmp_path, "baselines: {alpha: 0.5}")) == ["baselines.alpha"]


def test_the_table_lists_every_field_with_type_default_and_description() -> None:
    fields = list(list_fields())
    lines = config_table().splitlines()
    assert len(lines) == len(fields)
    for line, (key, kind, default, description) in zip(lines, fields, strict=True):
        assert line.split()[0] == key
        assert str(default) in line
        assert len(description) > 10
        assert line.endswith(f"{description} [{kind}]")
    by_key = {key: (kind, default) for key, kind, default, _ in fields}
    assert by_key["crd.optimizer.schedule"][1] == "exponential"  # the section's own, not Optimizer's
    assert by_key["data.root"] == ("path", None)
    assert by_key["baselines.methods"] == (f"list of {'|'.join(METHODS)}", list(METHODS))
    assert by_key["teacher.epochs"] == ("int", Config().teacher.epochs)


def test_every_option_is_in_the_table() -> None:
    def leaves(values: dict[str, object], prefix: str = "") -> set[str]:
        found = set()
        for name, value in values.items():
            nested = isinstance(value, dict) and value
            found |= leaves(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}"}
        return found

    assert {key for key, *_ in list_fields()} == leaves(Config().model_dump())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crd: {epochs: yes}", r"crd\.epochs: true and false .* are no value here"),
        ("seeds: [true]", r"seeds: true and false"),
        ("crd: {patience: on, until: plateau}", r"crd\.patience: true and false"),
        ("data: {crop: true}", r"data\.crop: true and false"),
        ("shortcut: {conflicting: yes}", r"shortcut\.conflicting: true and false"),
        ("data: {mean: [125.3, 123.0, 113.9]}", r"data\.mean\.0: .*less than or equal to 1, not 125\.3"),
        ("data: {std: [63.0, 62.1, 66.7]}", r"data\.std\.0: .*less than or equal to 1"),
        ("data: {crop: 32, image_size: 32}", r"data: crop 32 is a padding and must be smaller than image_size 32"),
        ("false", "expected keys and values"),
        ("[]", "expected keys and values"),
        ("crd: {dim: 4, dim: 8}", r"dim \(line 1\) stands twice"),
        ("name: a\nseeds: [1]\nname: b", r"name \(line 3\) stands twice"),
    ],
)
def test_values_that_would_be_taken_for_others_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "c.yaml")


def test_a_run_of_an_earlier_version_goes_on_with_the_normalisation_of_its_data(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("teacher: {arch: resnet18, weights: DEFAULT}\nstudent: {arch: resnet8}\n", encoding="utf-8")
    written = load_written(path)
    assert (written.teacher.mean, written.teacher.std) == ("data", "data")
    assert written.student.mean is None and load_config(path).teacher.mean is None
    assert load_config(path, ["student.arch_options=null"]).student.arch_options == {}
