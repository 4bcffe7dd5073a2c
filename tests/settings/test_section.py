from __future__ import annotations

import pytest

from errors import UserError
from settings.reading import load_config
from settings.section import MAX_NAME_BYTES, check_name, count_share


@pytest.mark.parametrize(
    "name", ["digits-2", ".hidden", "a..b", "com10", "null", "console", "é" * 50, "x" * MAX_NAME_BYTES]
)
def test_good_names_are_kept(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", [".", "..", "....", "run.", "-x", "con", "NUL", "com1.old", "x" * 101, "é" * 51])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="choose|leave it out|at most 100"):
        check_name(name)


@pytest.mark.parametrize(
    "setting",
    [
        "name=..",
        "name=a/b",
        'name="a\\n"',
        'name=""',
        "methods={aux: {base: kd}}",
        "methods={lpt1: {}}",
        "methods={KD: {base: kd}}",
        "methods={a/b: {base: kd}}",
    ],
)
def test_names_in_configs_are_checked(tiny_config, setting: str) -> None:
    with pytest.raises(UserError, match=rf"{setting.partition('=')[0]}.*(choose|pattern)"):
        load_config(tiny_config, [setting])


@pytest.mark.parametrize(
    ("share", "total", "count"),
    [(0.7, 60_000, 42_000), (0.285, 100, 29), (0.5, 5, 3), (0.3, 10, 3), (1e-5, 100, 0)],
)
def test_shares_are_rounded_as_written(share: float, total: int, count: int) -> None:
    assert count_share(share, total) == count
