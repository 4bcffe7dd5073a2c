from __future__ import annotations

from pathlib import Path

import pytest

from errors import UserError
from settings.loss_options import fill_losses, list_options
from settings.moved import MOVED, find_moved
from settings.reading import list_fields, load_config

OPTIMIZER = (
    "name lr momentum nesterov weight_decay decay_norms clip_norm accumulate ema warmup schedule gamma milestones"
)
# every option of the last version with sections for its two stages that has another place now
OLD = {
    "teacher": "until watch patience min_delta label_smoothing views",
    "crd": "errors_of error_weight epochs batch_size objective negatives mode num_negatives dim temperature "
    "bank_momentum bank_init ridge whitening lambda_penultimate lambda_last until patience min_delta",
    "kd": "until watch patience min_delta errors_of error_weight epochs batch_size train feature_lr temperature "
    "alpha label_smoothing features images head teacher_head",
    "baselines": "until watch patience min_delta errors_of error_weight methods variants epochs batch_size "
    "temperature alpha label_smoothing crd_weight",
    "crd.optimizer": OPTIMIZER,
    "kd.optimizer": OPTIMIZER,
    "baselines.optimizer": OPTIMIZER,
}
OLD_KEYS = [f"{section}.{name}" for section, names in OLD.items() for name in names.split()] + [
    "variants",
    "capture",
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("moved") / "c.yaml"
    path.write_text("methods: [two_stage, kd, crd_kd]", encoding="utf-8")
    return path


@pytest.mark.parametrize("key", OLD_KEYS)
def test_every_old_option_names_its_new_place(empty: Path, key: str) -> None:
    place = find_moved(key)
    assert place is not None
    if " " in place or ":" in place:  # words, or what to write
        return
    if place == "methods":
        load_config(empty, ["methods=[kd]"])
        return
    with pytest.raises(UserError) as refused:  # of this value, not of the key
        fill_losses(load_config(empty, [f"{place.replace('NAME', 'two_stage')}=[[]]"]))
    assert place.rpartition(".")[2] in str(refused.value) and "unknown key" not in str(refused.value)


@pytest.mark.parametrize("key", MOVED)
def test_moved_keys_are_no_options(key: str) -> None:
    assert key not in {new for new, *_ in [*list_fields(), *list_options()]}


def test_moved_sections_keep_the_rest_of_keys() -> None:
    assert find_moved("kd.optimizer.lr") == "methods.two_stage.stage2.optimizer.lr"
    assert find_moved("crd.temperature") == "losses.crd.temperature"
    assert find_moved("teacher.epochs") is None and find_moved("methods.kd.losses.kl") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crd: {temperature: 0.07}", r"c\.yaml: crd\.temperature is now losses\.crd\.temperature$"),
        ("variants: {a: {kd: {train: head}}}", r"variants\.a\.kd\.train is now methods: NAME: \{base: two_stage"),
        ("crd: null", r"crd is now losses\.crd$"),
        ("capture: true", "capture is now cuda_graphs$"),
    ],
)
def test_old_keys_in_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "c.yaml")


def test_old_keys_of_overrides_are_refused(empty: Path) -> None:
    with pytest.raises(UserError, match=r"^--set teacher\.views=2: teacher\.views is now teacher\.cached_views$"):
        load_config(empty, ["teacher.views=2"])
