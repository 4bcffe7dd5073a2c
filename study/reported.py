"""The numbers of a study's report, from which its files are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from settings.study import Hypothesis
from study.checks import Check
from study.comparison import Contrast
from study.inheritance import InheritanceRow
from study.results import SummaryRow
from study.selection import SelectionRow

STUDY_VERSION = 4  # of report.json: raise it when a field goes, is renamed or changes its meaning


@dataclass(frozen=True)
class StudyReport:
    """All numbers of a study's report; the point that answers comes first."""

    schema_version: int  # of its report.json, `STUDY_VERSION`
    study: str
    config: dict[str, Any]  # as JSON
    stated: Mapping[str, Hypothesis]
    recorded: list[str]  # names of runs
    environments: list[dict[str, Any]]  # versions and hardware of the trainings, each once
    planted: bool
    seeds: list[int]
    points: list[str]
    methods: list[str]
    summary: list[SummaryRow]
    hypotheses: list[Contrast]
    rest: list[Contrast]
    effects: list[Contrast]  # of decoupling, named by the effect
    inheritance: list[InheritanceRow]
    checks: list[Check]
    limitations: list[str]  # sentences on what restricts the answers and fails no check
    selection: list[SelectionRow]
    notes: Mapping[str, str]
    missing: list[str]
    twins: Mapping[str, str]  # staged method -> end-to-end method
    end_to_end: list[str]
