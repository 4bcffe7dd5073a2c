"""Of diagnostics/schema.py, diagnostics/plain.py, docs/report.schema.json and docs/report_json.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from diagnostics import schema as schema_module
from diagnostics.evaluation.analysis import compute_report
from diagnostics.evaluation.results import SCHEMA_VERSION, Report
from diagnostics.plain import FLAT, WHERE_GIVEN, to_plain
from diagnostics.schema import from_plain, make_report_schema, read_report
from settings.study import Hypothesis
from tests.diagnostics.evaluation.test_claims import several
from tests.diagnostics.report.test_folder import network, recordings, usual

DOCS = Path(schema_module.__file__).parents[1] / "docs"


LIMITS = {
    "minimum": lambda value, limit: value >= limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
}


def accepts(part, value, whole) -> bool:
    """A second reading of the keywords that the schema uses; any other keyword fails the test."""
    part = dict(part)
    for words in ("title", "description", "default"):
        part.pop(words, None)
    if "$ref" in part:
        return accepts(whole["$defs"][part["$ref"].rpartition("/")[2]], value, whole)
    if "anyOf" in part:
        return any(accepts(one, value, whole) for one in part["anyOf"])
    if "const" in part and value != part.pop("const"):
        return False
    if "enum" in part and value not in part.pop("enum"):
        return False
    kind = part.pop("type", None)
    numbers = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "number": numbers,
        "integer": numbers and isinstance(value, int),
        None: True,
    }[kind]
    if not fits or not all(within(value, part.pop(limit)) for limit, within in LIMITS.items() if limit in part):
        return False
    if isinstance(value, list):
        inner = part.pop("items", {})
        return not part and all(accepts(inner, one, whole) for one in value)
    if isinstance(value, dict):
        known, more = part.pop("properties", {}), part.pop("additionalProperties", True)
        if set(part.pop("required", [])) - set(value):
            return False
        rest = [one for name, one in value.items() if name not in known] if more is not True else []
        assert not part, f"the test does not know {sorted(part)}"
        return all(accepts(known[name], value[name], whole) for name in known if name in value) and all(
            accepts(more, one, whole) for one in rest
        )
    return not part


REPORTS = {
    "usual": usual(),
    "several seeds": several().models,
    "no teacher": usual()[1:],
    "teacher alone": [network("teacher")],
    "stage 1 alone": [network("stage1")],
}


@pytest.mark.parametrize("case", REPORTS)
def test_what_is_written_is_what_the_schema_says_and_can_be_read_back(case, tmp_path) -> None:
    report = compute_report(recordings(REPORTS[case]))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(to_plain(report)), encoding="utf-8")
    written = json.loads(path.read_text(encoding="utf-8"))
    described = make_report_schema()
    assert described.pop("$schema").endswith("2020-12/schema")
    definitions = {"$defs": described.pop("$defs")}
    assert accepts(described, written, definitions)
    assert read_report(path) == report
    assert accepts(described, {**written, "a_field_to_come": 1}, definitions)
    assert not accepts(described, {**written, "images": "many"}, definitions)
    assert not accepts(described, {**written, "schema_version": SCHEMA_VERSION + 1}, definitions)
    assert not accepts(described, {name: written[name] for name in written if name != "claims"}, definitions)
    with pytest.raises(ValueError, match="unheard_of"):  # that the schema forgets no field of ours
        from_plain(Report, {**written, "unheard_of": 1})


def test_the_schema_in_docs_is_the_one_of_this_version() -> None:
    shipped = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))
    assert shipped == make_report_schema(), "run python -m diagnostics.schema > docs/report.schema.json"
    assert shipped["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert f"`schema_version` {SCHEMA_VERSION}" in (DOCS / "report_json.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Inner:
    """Inside."""

    value: float
    pair: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    """Outside."""

    inner: Inner = field(metadata=FLAT)
    left: Inner | None = field(metadata=WHERE_GIVEN)
    named: str = field(metadata={"key": "class"})
    by_name: dict[str, list[Inner]]


def test_flat_renamed_and_absent_fields_come_back() -> None:
    made = Outer(Inner(1.5, (1, 2)), None, "cat", {"a": [Inner(2.0)]})
    plain = json.loads(json.dumps(to_plain(made)))
    assert plain == {
        "value": 1.5,
        "pair": [1, 2],
        "class": "cat",
        "by_name": {"a": [{"value": 2.0, "pair": []}]},
    }
    assert from_plain(Outer, plain) == made and list(plain) == ["value", "pair", "class", "by_name"]
    given = Outer(Inner(1.0), Inner(2.0), "dog", {})
    assert to_plain(given)["left"] == {"value": 2.0, "pair": []} and from_plain(Outer, to_plain(given)) == given
    assert to_plain([Hypothesis(first="crd_kd", second="kd")])[0]["first"] == "crd_kd"
    with pytest.raises(ValueError, match="by_name.a.0.value"):
        from_plain(Outer, {**plain, "by_name": {"a": [{"value": "x", "pair": []}]}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "another version"),
        ("{}", "another version"),
        (json.dumps({"schema_version": 0}), "another version"),
        (json.dumps({"schema_version": SCHEMA_VERSION}), "is no report .*: Field required"),
    ],
)
def test_what_is_no_report_of_this_version_is_refused_in_a_line(tmp_path, text, message) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        read_report(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert Report.__doc__ and make_report_schema()["description"] == Report.__doc__
