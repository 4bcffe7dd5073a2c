"""Of study/schemas.py, docs/comparison.schema.json, docs/study.schema.json and the words on them in docs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diagnostics.evaluation.analysis import compute_report
from diagnostics.evaluation.pairs import find_correct
from diagnostics.evaluation.runs import compare_runs
from diagnostics.evaluation.saved_evaluation import Evaluation
from diagnostics.plain import to_plain
from study import schemas
from study.report import make_report
from study.schemas import KINDS, make_schema
from tests.diagnostics.report.test_folder import recordings, usual
from tests.diagnostics.test_schema import accepts
from tests.study.test_report import NONE, POINTS, make_context, make_records

DOCS = Path(schemas.__file__).parents[1] / "docs"


def make_comparison() -> object:
    found = recordings(usual())
    answers = {model.name: find_correct(model, found) for model in found.models if model.meta.classifies}
    return compare_runs([Evaluation(Path(name), compute_report(found), answers) for name in ("a", "b")])


def make_study_without_a_cue() -> object:
    bare = [
        replace(one, measures=None, per_image_following=None, numbers={"top1": 0.5 + one.seed / 100})
        for one in make_records(points=POINTS[:1])
    ]
    return make_report(bare, make_context(bare, NONE))


WRITTEN = {
    "comparison": [make_comparison],
    "study": [
        lambda: make_report(make_records(), make_context(make_records())),
        lambda: make_report(make_records(seeds=1), make_context(make_records(seeds=1), NONE)),
        make_study_without_a_cue,
    ],
}


@pytest.mark.parametrize(("name", "make"), [(name, make) for name, made in WRITTEN.items() for make in made])
def test_written_reports_match_their_schema(name, make) -> None:
    written = json.loads(json.dumps(to_plain(make()), allow_nan=False))
    described = make_schema(name)
    assert described.pop("$schema").endswith("2020-12/schema")
    definitions = {"$defs": described.pop("$defs")}
    assert accepts(described, written, definitions)
    assert set(described["properties"]) == set(written)  # that the schema forgets no field of ours
    assert not accepts(described, {**written, "schema_version": KINDS[name][1] + 1}, definitions)
    for key in written:
        assert not accepts(described, {k: written[k] for k in written if k != key}, definitions)
        assert not accepts(described, {**written, key: 0.5}, definitions)


@pytest.mark.parametrize("name", KINDS)
def test_schemas_in_docs_are_of_this_version(name) -> None:
    shipped = json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert shipped == make_schema(name), f"run python -m study.schemas {name} > docs/{name}.schema.json"
    assert f"[{name}.schema.json]({name}.schema.json)" in (DOCS / "report_json.md").read_text(encoding="utf-8")
    assert shipped["properties"]["schema_version"]["const"] == KINDS[name][1]
