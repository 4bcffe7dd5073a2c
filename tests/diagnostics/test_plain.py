from __future__ import annotations

from dataclasses import dataclass, field

from diagnostics.plain import FLAT, WHERE_GIVEN, to_plain
from settings.study import Hypothesis


@dataclass(frozen=True)
class Inner:
    value: float | None
    kind: str = field(default="k", metadata={"key": "class"})


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(metadata=FLAT)
    parts: dict[str, Inner]
    absent: Inner | None = field(default=None, metadata=WHERE_GIVEN)
    both: Inner | None = field(default=None, metadata=FLAT | WHERE_GIVEN)
    pair: tuple[int, None] = (1, None)


def test_marks_lift_leave_out_and_rename() -> None:
    plain = to_plain(Outer("a", Inner(None), {"x": Inner(1.0)}))
    assert plain == {
        "name": "a",
        "value": None,
        "class": "k",
        "parts": {"x": {"value": 1.0, "class": "k"}},
        "pair": [1, None],
    }
    assert list(plain) == ["name", "value", "class", "parts", "pair"]  # in the order of the fields
    given = to_plain(Outer("a", Inner(None), {}, absent=Inner(2.0), both=Inner(3.0)))
    assert given["absent"] == {"value": 2.0, "class": "k"} and given["value"] == 3.0


def test_a_part_of_the_config_is_its_own_json() -> None:
    assert to_plain([Hypothesis(first="crd_kd", second="kd")])[0]["first"] == "crd_kd"
