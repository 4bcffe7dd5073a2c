"""Trainings that several runs of a study share: fingerprints and copies."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

from settings.loss_options import CLASS, digest_own_losses, find_loss, make_loss, read_options
from settings.networks import Network
from settings.own_code import digest_code
from settings.schema import Config
from settings.stages import Stage
from training.job_name import (
    TEACHER,
    JobName,
    count_earlier_epochs,
    find_last_job,
    find_start,
    get_stage,
    uses_teacher_network,
)
from training.run.job_folder import JobFolder

MIXING = ("mix", "mix_strength")  # of data, not for the teacher
LOADING = ("cache_dir", "in_memory", "workers")  # of data: storage and readers, which change no weight
NAMED = {"starts_from", "upweight_errors_of", "teacher"}  # of a stage: methods, which count by their weights
Fingerprints = dict[JobName, str]


def compute_fingerprint(config: Config, job: JobName, known: Fingerprints | None = None) -> str:
    """Return a digest of all that a job's weights depend on.

    Args:
        config: of a run, with its one seed.
        known: of other jobs of this run, to which those that were needed are added.
    """
    known = {} if known is None else known
    if job not in known:
        parts = json.dumps(list_ingredients(config, job, known))  # in their order, which losses are set up in
        known[job] = hashlib.sha256(parts.encode()).hexdigest()
    return known[job]


def list_ingredients(config: Config, job: JobName, known: Fingerprints) -> dict[str, Any]:
    """Return all parts of a run's config that a job's weights depend on."""
    stage = get_stage(config, job)
    data = config.data.model_dump(mode="json", exclude={*LOADING, *MIXING})
    common: dict[str, Any] = {"data": data, "precision": config.precision}
    common["stage"] = _describe_stage(config, job, stage)
    # compiled blocks round otherwise in the last bits, as another precision would; captured passes might
    common |= {key: True for key in ("compile", "cuda_graphs") if getattr(config, key)}
    if job == TEACHER:
        common |= config.teacher.model_dump(mode="json", include={"checkpoint", "init", "seed"})
        return {**common, "network": _describe_network(config.teacher), "cues": _describe_cues(config, "teacher")}
    network = config.teacher if uses_teacher_network(config, job) else config.student
    return {
        **common,
        "network": _describe_network(network),
        "mix": [config.data.mix, config.data.strength if config.data.mix != "none" else 0],
        "seed": job.seed,
        "views": config.teacher.cached_views,
        "cues": _describe_cues(config, "balanced" if stage.images == "balanced" else "students"),
        "number": job.number,
        "first_epoch": count_earlier_epochs(config, job),
        "from_teacher": stage.starts_from == TEACHER.method,
        **_list_sources(config, job, stage, known),
    }


def _list_sources(config: Config, job: JobName, stage: Stage, known: Fingerprints) -> dict[str, Any]:
    """Return fingerprints of the jobs whose weights or answers a job uses."""
    seed = job.seed or 0
    found: dict[str, Any] = {
        "starts_from": [compute_fingerprint(config, one, known) for one in find_start(config, job)]
    }
    for option in ("upweight_errors_of", "teacher"):
        method = getattr(stage, option)
        found[option] = method and compute_fingerprint(config, find_last_job(config, method, seed), known)
    losses = [make_loss(job.key, name, use.options, config.losses) for name, use in stage.losses.items()]
    needs_teacher = any(loss.needs_teacher for loss in losses)
    if needs_teacher or stage.starts_from == TEACHER.method:
        found["taught_by"] = compute_fingerprint(config, TEACHER, known)
    if needs_teacher:
        found["pairs"] = config.shortcut.pairs
    return found


def _describe_stage(config: Config, job: JobName, stage: Stage) -> dict[str, Any]:
    """Return a stage with every option of its losses, and without names of methods."""
    digests = digest_own_losses(config, stage)
    losses = []
    for name, use in stage.losses.items():
        given = {option: value for option, value in use.options.items() if option != CLASS}
        options = read_options(f"{job.key}.losses.{name}", find_loss(name, config.losses), given)
        code = [config.losses.get(name, {}).get(CLASS, ""), digests.get(name, "")]
        losses.append([name, use.weight, use.ramp_up, use.fade, options, *code])
    return {**stage.model_dump(mode="json", exclude={"losses", *NAMED}), "losses": losses}


def _describe_network(network: Network) -> dict[str, Any]:
    values = network.model_dump(mode="json", include={*Network.model_fields})
    return {**values, "code": digest_code("arch", network.arch)}


def _describe_cues(config: Config, images: str) -> dict[str, Any] | None:
    """Return the settings of cues of "teacher", "students" or "balanced" images."""
    shortcut = config.shortcut
    if shortcut.cue == "none":
        return None
    cues = {"cue": shortcut.cue, "seed": shortcut.seed, "file": shortcut.file and str(shortcut.file)}
    if images == "balanced":
        return {**cues, "balanced": True}
    arm = shortcut.teacher if images == "teacher" else shortcut.students
    return {**cues, "conflicting": shortcut.conflicting if arm == "biased" else "uniform"}


def copy_job(source: JobFolder, target: JobFolder) -> None:
    """Copy a finished job to another run; an interrupted copy is not finished."""
    partial = target.path.with_name(f".{target.name}.partial")
    JobFolder(partial).clear()
    shutil.copytree(source.path, partial)
    target.clear()
    partial.rename(target.path)
