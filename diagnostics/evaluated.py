"""What the folder of a run has of its evaluation, read and not computed: no network, no images.

Letters: N test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.stages import METHODS
from diagnostics import recording_file
from diagnostics.claims import section
from diagnostics.names import method_of
from diagnostics.results import Report
from diagnostics.schema import read_report
from training.identity import NAME, read_identity
from training.job_folder import JobFolder
from training.job_name import baseline, stage2
from training.run_folder import RunFolder

TEACHER = "teacher"


@dataclass(frozen=True)
class Evaluation:
    """A run's report, and where each of its models is right."""

    folder: Path  # of the run
    report: Report
    right: dict[str, NDArray[np.bool_]]  # by model, (N,)

    @property
    def run(self) -> str:
        """The name of the folder, which may be a copy of the one that was evaluated."""
        return self.folder.resolve().name


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation that a run's folder holds.

    Raises:
        ValueError: none, a damaged one, or one of other weights or test images than the run has now.
    """
    report_path, answers_path = folder / "eval" / "report.json", folder / "eval" / "predictions.npz"
    for path in (report_path, answers_path):
        if not path.is_file():
            raise ValueError(f"{path} is missing")
    report, answers = read_report(report_path), recording_file.read_answers(answers_path)
    hashes = {model.name: model.weights_hash for model in report.models}
    recorded = {name: answers.hashes[name] for name in answers.right}
    if hashes != recorded or len(answers.labels) != report.images:
        raise ValueError(f"{report_path} and {answers_path.name} are of different evaluations")
    if (folder / "config.yaml").exists():
        changed = outdated(hashes, finished_models(RunFolder(folder)))
        if changed:
            raise ValueError(f"{changed[0]} was trained since {report_path}")
        made_from = read_identity(folder) if (folder / NAME).exists() else None
        if made_from is not None and made_from.data.of_test != report.context.test:
            raise ValueError(f"{report_path} is of other test images than {folder / NAME}")
    return Evaluation(folder, report, answers.right)


def outdated(reported: dict[str, str], finished: dict[str, str]) -> list[str]:
    """Finished models that a report lacks, or has with other weights."""
    return [name for name, digest in finished.items() if reported.get(name) != digest]


def finished_models(folder: RunFolder) -> dict[str, str]:
    """Digest of the weights of each finished model that classifies, by the name that a report gives it.

    Raises:
        UserError: result.json of one is damaged.
    """
    config, seeds = folder.config(), folder.seeds()
    jobs: dict[str, JobFolder] = {TEACHER: folder.teacher}
    for seed in seeds:
        suffix = "" if seed == seeds[0] else f"/{seed}"
        for method in (*METHODS, *config.baselines.variants):
            jobs[f"{method}{suffix}"] = folder.job(baseline(seed, method))
        for variant in ("", *config.variants):
            jobs[f"{variant or 'two_stage'}{suffix}"] = folder.job(stage2(seed, variant))
    return {name: job.result()["model_sha256"] for name, job in jobs.items() if job.marked}


def missing_models(run: Evaluation) -> list[str]:
    """Methods of a run's config of which a seed is not in its report, in words."""
    config, have = run.report.context.config, {(model.method, model.seed) for model in run.report.models}
    end_to_end = section(config, "baselines")
    methods = [*_listed(end_to_end, "methods"), *section(end_to_end, "variants"), *section(config, "variants")]
    lines = [] if (TEACHER, None) in have else [f"{run.run}: no finished teacher"]
    for method in (*methods, "two_stage"):
        lacking = [str(seed) for seed in _listed(config, "seeds") if (method, seed) not in have]
        if lacking:
            lines.append(f"{run.run}: no finished {method} of seed{'s' * (len(lacking) > 1)} {', '.join(lacking)}")
    return lines


def _listed(config: Mapping[str, Any], name: str) -> list[Any]:
    found = config.get(name)
    return found if isinstance(found, list) else []


def student_of(report: Report) -> str | None:
    """The student that a run is about: two-stage of the first seed, else the last of its students."""
    students = [model.name for model in report.models if model.method != TEACHER]
    first = [name for name in students if method_of(name) == name]
    return next((name for name in first if name in ("two_stage", "student")), first[-1] if first else None)
