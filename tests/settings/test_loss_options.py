"""Of settings/loss_options.py: options that are read from the constructors of losses."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch

from errors import UserError
from losses.crd import CRD
from losses.kl import KL
from losses.loss import Loss, Positive, Range, Taps
from settings.loss_options import (
    digest_own_losses,
    fill_losses,
    find_loss,
    get_loss_title,
    list_losses,
    list_options,
    list_stages,
    make_loss,
    make_model,
    read_descriptions,
    read_options,
    read_signatures,
)
from settings.schema import Config

OWN = '''
from losses.kl import KL
from losses.loss import Loss, Positive


class Cosine(Loss):
    """One minus the cosine.

    Args:
        scale: what it is multiplied by
    """

    def __init__(self, scale: Positive = 1.0) -> None:
        super().__init__()
        self.scale = scale


class Inherited(KL):
    """KL by another name."""


def function(): ...
'''
LOSSES = list_losses()
BATCH = {"negatives": "batch", "objective": "infonce", "mode": "instance"}
DEFAULTS = {
    "ce": {"label_smoothing": 0.0, "prior": 0.0},
    "kl": {"temperature": 4.0, "standardise": False},
    "dkd": {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "standardise": False},
    "dist": {"beta": 1.0, "gamma": 1.0, "temperature": 4.0, "standardise": False},
    "wttm": {"gamma": 0.2, "standardise": False},
    "rkd": {"taps": {"last": 1.0}, "distance": 25.0, "angle": 50.0},
    "pkt": {"taps": {"last": 1.0}},
    "sp": {"taps": {"last_stage": 1.0}},
    "cc": {"taps": {"last": 1.0}, "dim": 128},
    "itrd": {"taps": {"last": 1.0}, "alpha": 1.5, "correlation": 2.0, "gram": 1.0},
    "fitnet": {"taps": {"stage2": 1.0}},
    "at": {"taps": {"stage1": 1.0, "stage2": 1.0, "stage3": 1.0}},
    "srrl": {"tap": "last_stage", "alpha": 1.0, "beta": 1.0},
    "reviewkd": {"taps": {"stage1": 1.0, "stage2": 1.0, "stage3": 1.0}},
    "regression": {"taps": {"penultimate": 0.5, "last": 1.0}, "ridge": 0.01, "whitening": -0.5},
    "reuse": {},
    "simkd": {},
    "crd": {
        "taps": {"penultimate": 0.5, "last": 1.0},
        "objective": "nce",
        "negatives": "bank",
        "mode": "exact",
        "num_negatives": 16384,
        "dim": 256,
        "temperature": 0.1,
        "bank_momentum": 0.5,
        "bank_init": "random",
    },
}


def read_losses(losses: Mapping[str, Any], **stage_losses: Any) -> Config:
    """A config of one method of one stage, `methods.mine.stage1`, with its losses completed."""
    methods = {"mine": {"stage1": {"losses": stage_losses or {"ce": 1}}}}
    return fill_losses(Config.model_validate({"losses": losses, "methods": methods}))


def get_refusal(function: Callable[..., object], *given: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        function(*given, **options)
    return str(error.value)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the working directory, of this test alone, with losses of the user's own."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    sys.modules.pop(name, None)


def test_every_file_with_a_loss_is_one() -> None:
    assert list(LOSSES) == sorted(DEFAULTS)
    assert {name: kind.__module__ for name, kind in LOSSES.items()} == {
        name: f"losses.{name}" for name in DEFAULTS
    }


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_valid_and_those_of_the_constructor(name: str) -> None:
    found = read_options(f"losses.{name}", LOSSES[name], {})
    assert found == DEFAULTS[name]
    made = LOSSES[name](**found)
    for option, value in found.items():
        assert getattr(made, option, value) == value
    assert not list(made.parameters())  # sizes are not known yet


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_option_has_one_description(name: str) -> None:
    options = {
        key.split(".")[2]: (default, text) for key, _, default, text in list_options() if f".{name}." in key
    }
    assert {option: default for option, (default, _) in options.items()} == DEFAULTS[name]
    assert list(read_descriptions(LOSSES[name])) == list(DEFAULTS[name])
    assert all(text and not text.endswith(".") for _, text in options.values())


def test_descriptions_go_on_over_lines() -> None:
    class Described(Loss):
        """First line.

        Args:
            first: one
                and the rest
            second: two: with a colon

        other: not an option
        """

    class Bare(Loss):
        pass

    assert read_descriptions(Described) == {"first": "one and the rest", "second": "two: with a colon"}
    Bare.__doc__ = None
    assert read_descriptions(Bare) == {}


@pytest.mark.parametrize(
    ("loss", "option", "value", "reason"),
    [
        ("crd", "temperature", 0, "greater than 0"),
        ("crd", "temperature", float("nan"), "finite"),
        ("crd", "temperature", True, "true and false"),
        ("crd", "num_negatives", 0, "greater than or equal to 1"),
        ("crd", "num_negatives", 2.5, "valid integer"),
        ("crd", "bank_momentum", 1, "less than 1"),
        ("crd", "objective", "softmax", "'nce' or 'infonce'"),
        ("crd", "taps", 3, "dictionary"),
        ("crd", "taps.last", -1, "greater than or equal to 0"),
        ("ce", "label_smoothing", 1, "less than 1"),
        ("kl", "standardise", "perhaps", "valid boolean"),
        ("wttm", "gamma", 0, "greater than 0"),
        ("regression", "whitening", 0.1, "less than or equal to 0"),
        ("regression", "whitening", -0.6, "greater than or equal to -0.5"),
    ],
)
def test_values_out_of_range_are_refused_by_key(loss: str, option: str, value: object, reason: str) -> None:
    name, _, inner = option.partition(".")
    given = {name: {inner: value} if inner else value}
    for config, key in ((({loss: given}), f"losses.{loss}"), ({}, f"methods.mine.stage1.losses.{loss}")):
        message = get_refusal(read_losses, config, **({} if config else {loss: given}))
        assert message.startswith(f"{key}.{option}: ") and reason in message
        assert message.endswith(f", not {value!r}")


def test_bounds_that_may_be_reached_are() -> None:
    given = {"crd": {"num_negatives": 1, "bank_momentum": 0, "taps": {"last": 0}}, "regression": {"whitening": 0}}
    found = read_losses(given).losses
    assert all(found[loss] == DEFAULTS[loss] | options for loss, options in given.items())


def test_types_are_those_of_the_signature() -> None:
    fields = make_model(CRD).model_fields
    assert fields["dim"].annotation is int and fields["temperature"].annotation is float
    assert fields["mode"].annotation == Literal["exact", "relax", "instance"]
    found = read_options("losses.crd", CRD, {"temperature": 1, "taps": {"last": 2}})
    assert isinstance(found["temperature"], float) and isinstance(found["taps"]["last"], float)


class Deep(Loss):
    def __init__(
        self,
        taps: Taps | None = None,
        rates: dict[str, list[Positive]] | None = None,
        share: Annotated[float, "of all", Range(ge=0), Range(le=1)] = 0.5,
    ) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"taps": {"last": -1.0}}, "taps.last"),
        ({"rates": {"a": [1.0, 0.0]}}, "rates.a.1"),
        ({"share": 1.5}, "share"),
        ({"share": -0.5}, "share"),
    ],
)
def test_ranges_hold_at_any_depth(given: dict[str, Any], place: str) -> None:
    assert get_refusal(read_options, "losses.deep", Deep, given).startswith(f"losses.deep.{place}: ")
    assert read_options("losses.deep", Deep, {}) == {"taps": None, "rates": None, "share": 0.5}


def test_unknown_option_names_the_nearest() -> None:
    assert get_refusal(read_losses, {"crd": {"temprature": 0.1}}).startswith(
        "unknown key losses.crd.temprature, did you mean 'losses.crd.temperature'?"
    )
    stage = "methods.mine.stage1.losses.kl"
    assert get_refusal(read_losses, {}, kl={"weight": 1, "temprature": 2}).startswith(
        f"unknown key {stage}.temprature, did you mean '{stage}.temperature'?"
    )
    assert "losses.regression.xyz: losses.regression has taps, ridge, whitening" in get_refusal(
        read_losses, {"regression": {"xyz": 1}}
    )
    assert get_refusal(read_losses, {"reuse": {"xyz": 1}}).startswith("unknown key losses.reuse.xyz (python")


def test_signatures_are_read_without_importing() -> None:
    assert read_signatures() == {name: list(options) for name, options in DEFAULTS.items()}


def test_helper_files_are_no_losses() -> None:
    assert not {"loss", "bank", "contrast", "objectives"} & LOSSES.keys()


@pytest.mark.parametrize("given", [({"crdd": {}}, {}), ({}, {"crdd": 1})])
def test_unknown_loss_names_the_nearest(given: tuple[dict[str, Any], dict[str, Any]]) -> None:
    message = get_refusal(read_losses, given[0], **given[1])
    assert message.startswith("losses: there is no crdd, did you mean 'crd'?")
    assert f"(there are {', '.join(sorted(DEFAULTS))}, or package.module:Class" in message


def test_own_class_is_found_by_its_path(own: str) -> None:
    path = f"{own}:Cosine"
    config = read_losses({}, **{path: {"weight": 2, "scale": 3}})
    assert config.losses[path] == {"scale": 1.0}
    ((_, _), (key, stage)) = list_stages(config)
    assert key == "methods.mine.stage1" and stage.losses[path].options == {"scale": 3}
    made = make_loss(f"{key}.losses.{path}", path, stage.losses[path].options, config.losses)
    assert type(made).__name__ == "Cosine" and made.scale == 3.0
    assert get_loss_title(path) == "cosine" and get_loss_title("crd") == "crd"


def test_own_class_may_have_a_shorter_name(own: str) -> None:
    config = read_losses({"mine": {"class": f"{own}:Cosine", "scale": 2}}, mine=1)
    assert config.losses["mine"] == {"class": f"{own}:Cosine", "scale": 2.0}
    ((_, _), (_, stage)) = list_stages(config)
    made = make_loss("here", "mine", stage.losses["mine"].options, config.losses)
    assert type(made).__name__ == "Cosine" and made.scale == 2.0


def test_shipped_class_may_be_used_twice(own: str) -> None:
    config = read_losses({"cool": {"class": "kl", "temperature": 1}}, cool=1, kl=1, **{f"{own}:Inherited": 1})
    assert config.losses["cool"] == {"class": "kl"} | DEFAULTS["kl"] | {"temperature": 1.0}
    assert config.losses["kl"] == DEFAULTS["kl"] == config.losses[f"{own}:Inherited"]
    assert isinstance(make_loss("here", "cool", {}, config.losses), KL)


def test_own_class_has_ranges_too(own: str) -> None:
    path = f"{own}:Cosine"
    given = {"mine": {"class": path, "scale": 0}}
    assert get_refusal(read_losses, given, mine=1).startswith("losses.mine.scale: Input should be greater than 0")
    assert "did you mean 'losses.mine.scale'" in get_refusal(
        read_losses, {"mine": {"class": path, "scales": 2}}, mine=1
    )
    stage = f"methods.mine.stage1.losses.{path}"
    assert get_refusal(read_losses, {}, **{path: {"scale": 0}}).startswith(f"{stage}.scale: ")


def test_own_class_must_be_a_loss(own: str) -> None:
    for name in ("function", "KL.forward"):
        assert f"{own}:{name}: it is no subclass of losses.loss.Loss" in get_refusal(
            find_loss, f"{own}:{name}", {}
        )
    assert "did you mean 'Cosine'" in get_refusal(find_loss, f"{own}:Cosin", {})
    assert "no module nowhere_at_all" in get_refusal(find_loss, "nowhere_at_all:Cosine", {})


def test_class_is_said_once_for_all_stages(own: str) -> None:
    path = f"{own}:Cosine"
    message = get_refusal(read_losses, {}, kl={"class": path})
    assert message == "methods.mine.stage1.losses.kl.class: the same in all stages, set it as losses.kl.class"
    assert "there is no mine" in get_refusal(read_losses, {}, mine={"class": path})
    same = read_losses({"mine": {"class": path}}, mine={"class": path, "scale": 2})
    assert same.losses["mine"] == {"class": path, "scale": 1.0}


def test_constructors_that_do_not_fit_are_refused() -> None:
    class Demanding(Loss):
        def __init__(self, scale: float) -> None:
            super().__init__()

    class Taken(Loss):
        def __init__(self, fade: bool = False) -> None:
            super().__init__()

    assert get_refusal(make_model, Demanding) == "losses: Demanding needs a default for its option scale"
    assert get_refusal(make_model, Taken).startswith("losses: Taken has an option fade, as every use has")


def test_options_that_conflict_are_refused_by_key() -> None:
    reason = "negatives: batch needs objective: infonce and mode: instance"
    key = "methods.mine.stage1.losses.crd"
    assert get_refusal(read_losses, {}, crd={"negatives": "batch"}) == f"{key}: {reason}"
    assert get_refusal(read_losses, {"crd": {"negatives": "batch"}}, crd=1) == f"{key}: {reason}"
    assert get_refusal(read_losses, {"crd": BATCH}, crd={"objective": "nce"}) == f"{key}: {reason}"
    assert read_losses({"crd": BATCH}, crd=1).losses["crd"] == DEFAULTS["crd"] | BATCH
    assert read_losses({}, crd=BATCH).losses["crd"] == DEFAULTS["crd"]  # what a stage says is its own


def test_options_of_a_stage_go_before_shared_ones() -> None:
    given = {"crd": {"negatives": "batch"}, "kl": {"temperature": 2}}
    own = {"crd": {"objective": "infonce", "mode": "instance"}, "kl": {"weight": 0.5, "temperature": 8}}
    config = read_losses(given, **own)
    ((_, _), (_, stage)) = list_stages(config)
    made = {name: make_loss("here", name, use.options, config.losses) for name, use in stage.losses.items()}
    assert (made["crd"].negatives, made["kl"].temperature, stage.losses["kl"].weight) == ("batch", 8.0, 0.5)
    assert config.losses["kl"] == DEFAULTS["kl"] | {"temperature": 2.0}


def test_options_of_the_teachers_losses_are_read() -> None:
    config = Config.model_validate({"teacher": {"losses": {"ce": {"label_smoothing": 1}}}})
    assert get_refusal(fill_losses, config).startswith(
        "teacher.losses.ce.label_smoothing: Input should be less than 1"
    )
    whole = fill_losses(Config.model_validate({"losses": {"ce": {"label_smoothing": 0.25}}}))
    assert whole.teacher_stage.losses["ce"].options == {"label_smoothing": 0.25, "prior": 0.0}


def test_completed_config_writes_out_every_default() -> None:
    config = Config.model_validate({"methods": ["two_stage", "crd_kd"], "losses": {"crd": {"dim": 8}}})
    done = fill_losses(config)
    assert done.losses == {
        "crd": DEFAULTS["crd"] | {"dim": 8},
        "ce": DEFAULTS["ce"],
        "kl": DEFAULTS["kl"],
    }
    assert done.model_dump(exclude={"losses"}) == config.model_dump(exclude={"losses"})
    for _, stage in list_stages(done):
        for name, use in stage.losses.items():
            assert use.options == done.losses[name]


def test_completing_twice_changes_nothing(own: str) -> None:
    given = {"mine": {"class": f"{own}:Cosine"}, "crd": BATCH}
    once = read_losses(given, mine=1, crd={"weight": 0.5, "temperature": 0.5}, kl=1)
    twice = fill_losses(once)
    assert twice == once and twice.stages == once.stages
    again = fill_losses(Config.model_validate(once.model_dump(mode="json")))
    assert again == once and again.stages == once.stages


def test_files_of_own_losses_have_digests(own: str) -> None:
    config = read_losses({"mine": {"class": f"{own}:Cosine"}}, mine=1, kl=1)
    ((_, _), (_, stage)) = list_stages(config)
    (found,) = digest_own_losses(config, stage).items()
    expected = hashlib.sha256(Path(f"{own}.py").read_bytes()).hexdigest()
    assert found == ("mine", expected[:16])


def test_losses_are_made_before_sizes_are_known() -> None:
    made = make_loss("here", "crd", {"dim": 8}, {"crd": DEFAULTS["crd"]})
    assert isinstance(made, CRD) and made.dim == 8
    assert isinstance(made, torch.nn.Module) and not list(made.children())
