"""The JSON schemas of report.json of a comparison and of a study.

    python -m study.schemas comparison > docs/comparison.schema.json
    python -m study.schemas study > docs/study.schema.json

That of a run's report is made by `diagnostics.schema`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from diagnostics.evaluation.results import SCHEMA_VERSION
from diagnostics.evaluation.runs import RunsCompared
from diagnostics.schema import make_json_schema
from study.reported import STUDY_VERSION, StudyReport

KINDS: dict[str, tuple[type, int]] = {
    "comparison": (RunsCompared, SCHEMA_VERSION),
    "study": (StudyReport, STUDY_VERSION),
}


def make_schema(name: str) -> dict[str, Any]:
    """Return the schema of report.json of a comparison or a study."""
    kind, version = KINDS[name]
    return make_json_schema(kind, version, f"report.json of a {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=KINDS)
    print(json.dumps(make_schema(parser.parse_args().name), indent=1, ensure_ascii=False))
