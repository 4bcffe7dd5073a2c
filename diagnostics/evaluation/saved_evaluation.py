"""The evaluation in a run's folder, read and not computed: no network, no images.

Letters: N test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diagnostics.evaluation import recording_file
from diagnostics.evaluation.results import Report
from diagnostics.plain import get_section
from diagnostics.schema import read_report
from models.whole import hash_file
from settings.stages import Stage
from training.job_name import find_last_job, get_stage
from training.run.identity import NAME, read_identity
from training.run.job_folder import JobFolder
from training.run.run_folder import RunFolder

TEACHER = "teacher"
DIGEST = "report.sha256"  # beside report.json: shows a change of it


@dataclass(frozen=True)
class Evaluation:
    """A run's report, and where each of its models is right."""

    folder: Path  # of the run
    report: Report
    right: dict[str, NDArray[np.bool_]]  # by model, (N,)

    @property
    def run(self) -> str:
        """Name of the folder, which may be a copy of the one that was evaluated."""
        return self.folder.resolve().name


def read_evaluation(folder: Path) -> Evaluation:
    """Read the evaluation in a run's folder.

    Raises:
        ValueError: none, a damaged one, or one of other weights or test images than the run has now.
    """
    report_path, answers_path = folder / "eval" / "report.json", folder / "eval" / "predictions.npz"
    for path in (report_path, answers_path):
        if not path.is_file():
            raise ValueError(f"{path} is missing")
    report, answers = read_report(report_path), recording_file.read_answers(answers_path)
    digest = report_path.with_name(DIGEST)
    if not digest.is_file() or digest.read_bytes().strip() != hash_file(report_path).encode():
        raise ValueError(f"{report_path} is not as it was written")
    hashes = {model.name: model.weights_hash for model in report.models}
    recorded = {name: answers.hashes[name] for name in answers.right}
    if hashes != recorded or len(answers.labels) != report.images:
        raise ValueError(f"{report_path} and {answers_path.name} are of different evaluations")
    if (folder / "config.yaml").exists():
        changed = list_outdated(hashes, find_finished(RunFolder(folder)))
        if changed:
            raise ValueError(f"{changed[0]} was trained since {report_path}")
        made_from = read_identity(folder) if (folder / NAME).exists() else None
        if made_from is not None and made_from.data.test_digest != report.context.test:
            raise ValueError(f"{report_path} is of other test images than {folder / NAME}")
    return Evaluation(folder, report, answers.right)


def list_outdated(reported: dict[str, str], finished: dict[str, str]) -> list[str]:
    """List finished models that a report lacks, or has with other weights."""
    return [name for name, digest in finished.items() if reported.get(name) != digest]


def find_finished(folder: RunFolder) -> dict[str, str]:
    """Return weight digests of finished models that classify, by report name.

    Raises:
        UserError: result.json of one is damaged.
    """
    config, seeds = folder.read_config(), folder.list_seeds()
    jobs: dict[str, JobFolder] = {TEACHER: folder.teacher}
    for seed in seeds:
        suffix = "" if seed == seeds[0] else f"/{seed}"
        for method in config.stages:
            job = find_last_job(config, method, seed)
            if get_stage(config, job).has_answers:
                jobs[f"{method}{suffix}"] = folder.get_job(job)
    return {name: job.read_result()["model_sha256"] for name, job in jobs.items() if job.has_result}


def list_missing(run: Evaluation) -> list[str]:
    """List in words the methods of a run's config of which its report lacks a seed."""
    config, have = run.report.context.config, {(model.method, model.seed) for model in run.report.models}
    lines = [] if (TEACHER, None) in have else [f"{run.run}: no finished teacher"]
    for method, stages in get_section(config, "methods").items():
        missing = [str(seed) for seed in config["seeds"] if (method, seed) not in have]
        if missing and Stage(**stages[f"stage{len(stages)}"]).has_answers:
            lines.append(f"{run.run}: no finished {method} of seed{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return lines
