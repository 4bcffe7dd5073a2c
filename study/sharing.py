"""Trainings that several runs of a study have in common: what each depends on, and copying it where it is done."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

from configs.schema import Config
from configs.stages import Method
from training.baselines import TERMS
from training.job_folder import JobFolder
from training.job_name import TEACHER, JobName, config_of, needs

ONLY_STAGE1 = {  # of crd, not for baselines
    *("epochs", "batch_size", "optimizer", "until", "patience", "min_delta", "errors_of", "error_weight")
}

STOPPING = ("until", "watch", "patience", "min_delta")
OF_SCRATCH = ("batch_size", "optimizer", "error_weight", "label_smoothing", *STOPPING)  # of baselines
MIXING = ("mix", "mix_strength")  # of data, not for the teacher
LOADING = ("cache_dir", "in_memory", "workers")  # of data: where images are kept and who reads them, none changes


def ingredients(config: Config, job: JobName) -> dict[str, Any]:
    """All that a job's weights depend on: only those parts of a run's config, and of the jobs it starts from.

    config: of a run, with its one seed.
    """
    values = config.model_dump(mode="json")
    data = {key: value for key, value in values["data"].items() if key not in (*LOADING, *MIXING)}
    if job == TEACHER:
        settings = {key: value for key, value in values["teacher"].items() if key != "views"}
        made = {"data": data, "precision": config.precision, "teacher": settings, "cues": _cues(config, "teacher")}
        return made | _ways_to_compute(config)
    common = {
        "data": data,
        "mix": [config.data.mix, config.data.strength if config.data.mix != "none" else 0],
        "precision": config.precision,
        "seed": config.seeds[0],
        "student": values["student"],
        "views": config.teacher.views,
    }
    common |= _ways_to_compute(config)
    own = config_of(config, job)
    common["from"] = [ingredients(config, source) for source in needs(config, job)]
    if job.kind == "stage1":
        return {**common, **_stage1(own)}
    if job.kind == "stage2":
        return {**common, **_stage2(own)}
    return {**common, **_baseline(own, own.method_of(job.of))}


def _ways_to_compute(config: Config) -> dict[str, Any]:
    """Compiled blocks round otherwise in the last bits, as another precision would; captured passes might."""
    return {key: True for key in ("compile", "capture") if getattr(config, key)}


def _baseline(config: Config, method: Method) -> dict[str, Any]:
    own: dict[str, Any] = {"epochs": config.baseline_epochs, "cues": _cues(config, "students")}
    settings = config.resolved().baselines.model_dump(
        mode="json", exclude={"methods", "variants", "epochs", "errors_of"}
    )
    own["candidates"] = config.kd.epochs
    if method == "scratch":
        return {**own, "scratch": {key: settings[key] for key in OF_SCRATCH}}
    own |= {method: settings, "teacher": ingredients(config, TEACHER), "pairs": config.shortcut.pairs}
    return {**own, "crd": config.crd.model_dump(exclude=ONLY_STAGE1)} if TERMS[method].crd else own


def _stage1(config: Config) -> dict[str, Any]:
    teacher = ingredients(config, TEACHER)
    return {
        "crd": config.crd.model_dump(mode="json", exclude={"errors_of"}),
        "cues": _cues(config, "students"),
        "teacher": teacher,
        "pairs": config.shortcut.pairs,
    }


def _stage2(config: Config) -> dict[str, Any]:
    kd = config.kd
    settings = kd.model_dump(mode="json", exclude={"features", "teacher_head", "errors_of"})
    named = kd.features if kd.features in ("random", "teacher") else "job"
    own: dict[str, Any] = {"kd": settings, "features": named, "first_epoch": config.crd.epochs}
    own["cues"] = _cues(config, "balanced" if kd.images == "balanced" else "students")
    if kd.alpha > 0 or "teacher" in (kd.head, kd.features):
        own["teacher"] = ingredients(config, TEACHER)
    if kd.alpha > 0 or kd.head == "teacher":
        own["pairs"] = config.shortcut.pairs
    return own


def _cues(config: Config, images: str) -> dict[str, Any] | None:
    """What decides the cues of the images that "teacher" or "students" train on, or of the "balanced" ones."""
    shortcut = config.shortcut
    if shortcut.cue == "none":
        return None
    cues = {"cue": shortcut.cue, "seed": shortcut.seed, "file": shortcut.file and str(shortcut.file)}
    if images == "balanced":
        return {**cues, "balanced": True}
    arm = shortcut.teacher if images == "teacher" else shortcut.students
    return {**cues, "conflicting": shortcut.conflicting if arm == "biased" else "uniform"}


def fingerprint(config: Config, job: JobName) -> str:
    """Of a job's ingredients: jobs with the same one have the same weights."""
    return hashlib.sha256(json.dumps(ingredients(config, job), sort_keys=True).encode()).hexdigest()


def copy_job(source: JobFolder, target: JobFolder) -> None:
    """Copy a finished job to where another run has it; an interrupted copy leaves nothing that looks finished."""
    partial = target.path.with_name(f".{target.name}.partial")
    JobFolder(partial).clear()
    shutil.copytree(source.path, partial)
    target.clear()
    partial.rename(target.path)
