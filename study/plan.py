"""The runs of a study, its checks before a start, and its dry run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

from dataset.cues.contact_sheet import write_contact_sheet
from dataset.sources import Source, load_source
from diagnostics.seeds import replace_hyphen
from diagnostics.shortcut import cue_recording_file
from errors import UserError, suggest_nearest
from models.layout import Layout
from models.machine import Machine
from models.whole import hash_file
from settings.loss_options import fill_losses
from settings.networks import Network
from settings.schema import Config
from settings.study import Hypothesis
from study.grid import TEACHER_SEED, Shard, StudyRun, has_values, list_runs
from study.measurements import MEASURES, list_measures
from study.methods import find_recording, list_students
from study.sharing import Fingerprints, compute_fingerprint
from training.checks import check_phase
from training.experiment import Experiment, open_experiment
from training.job_name import TEACHER, JobName, find_last_job, get_stage, list_sources
from training.phases import Job, list_phase_jobs
from training.run.job_folder import JobFolder
from training.run.run_folder import RunFolder
from training.teacher import is_given


@dataclass(frozen=True)
class StudyRuns:
    """A study to run: all of its runs, those of this shard, and their folders."""

    config: Config
    folder: Path
    machine: Machine
    shard: Shard = Shard()
    dry_run: bool = False
    sources: dict[str, Source] = field(default_factory=dict)  # decoded images, by data section as JSON
    layouts: dict[str, dict[str, Layout]] = field(default_factory=dict)  # by data section and networks as JSON
    fingerprints: dict[str, Fingerprints] = field(default_factory=dict)  # of jobs, by run

    @cached_property
    def runs(self) -> list[StudyRun]:
        """All runs, with every option of their losses checked and written out."""
        return [_fill_losses(run) for run in list_runs(self.config)]

    @cached_property
    def mine(self) -> list[StudyRun]:
        """The runs of this shard; runs that share a teacher are in one shard."""
        return self.shard.take(self.runs, lambda run: self.compute_fingerprint(run, TEACHER))

    @cached_property
    def jobs_by_fingerprint(self) -> dict[str, list[JobFolder]]:
        """Jobs of all runs, grouped by fingerprint."""
        found: dict[str, list[JobFolder]] = {}
        for run in self.runs:
            for job in self.list_jobs(run):
                found.setdefault(self.compute_fingerprint(run, job.name), []).append(job.folder)
        return found

    def compute_fingerprint(self, run: StudyRun, job: JobName) -> str:
        """Return a digest of everything that a job's weights depend on."""
        return compute_fingerprint(run.config, job, self.fingerprints.setdefault(run.name, {}))

    def get_run_folder(self, run: StudyRun) -> RunFolder:
        return RunFolder(self.folder / run.name)

    def list_jobs(self, run: StudyRun) -> list[Job]:
        return list_phase_jobs("all", run.config, self.get_run_folder(run))

    def open(self, run: StudyRun) -> Experiment:
        """Open a run; runs with the same data section share images, those with the same networks layouts."""
        data = run.config.data
        key = data.model_dump_json()
        if key not in self.sources:
            self.sources[key] = load_source(data, self.dry_run)
        networks = (run.config.teacher, run.config.student)
        built = "".join(network.model_dump_json(include={*Network.model_fields}) for network in networks)
        layouts = self.layouts.setdefault(key + built, {})
        return open_experiment(run.config, self.get_run_folder(run), self.machine, self.sources[key], layouts)

    def find_copy(self, run: StudyRun, job: Job) -> JobFolder | None:
        """Return a finished job of another run with the same fingerprint."""
        found = self.jobs_by_fingerprint[self.compute_fingerprint(run, job.name)]
        return next((other for other in found if other != job.folder and other.is_finished), None)


def _fill_losses(run: StudyRun) -> StudyRun:
    try:
        return replace(run, config=fill_losses(run.config))
    except UserError as error:
        raise UserError(f"study.grid at {run.label}: {error}") from None


def check_study(study: StudyRuns) -> None:
    """Check names, claims and measures, and that each point can be trained.

    Raises:
        UserError: the first mistake.
    """
    firsts = [run for run in study.runs if run.seed == study.config.seeds[0]]
    _check_effects(firsts)
    for run in firsts:
        methods = list_students(run.config, run.seed)
        for name, stated in study.config.study.hypotheses.items():
            if has_values(run.point, stated.where):
                _check_known(f"study.hypotheses.{name}", (stated.first, stated.second), methods)
                _check_measure(f"study.hypotheses.{name}.measure", stated.measure, run)
    _check_stated_once(study.config.study.hypotheses)
    known = list(dict.fromkeys(method for run in firsts for method in run.config.methods))
    for pair in study.config.study.twins.items():
        _check_known("study.twins", pair, known)
    for family, tries in study.config.study.tries.items():
        _check_known(f"study.tries.{family}", tries, known)
        for run in firsts:
            _check_choosable(run, f"study.tries.{family}", tries)
    for run in firsts:
        check_phase("all", study.open(run), study.list_jobs(run))
    _check_teachers(study, firsts)


def _check_teachers(study: StudyRuns, runs: Iterable[StudyRun]) -> None:
    """Raise `UserError` for teachers of one point that are the same network."""
    found: dict[tuple[str, str], str] = {}
    for run in runs:
        if not run.teacher:
            continue
        path = run.config.teacher.checkpoint
        if TEACHER_SEED in run.point and is_given(study.open(run)):
            raise UserError("study.grid: teacher.seed has no effect on a given teacher: vary teacher.checkpoint")
        digest = study.compute_fingerprint(run, TEACHER) if path is None else hash_file(path)
        same = found.setdefault((run.pooled.label, digest), run.teacher)
        if same != run.teacher:
            raise UserError(f"study.grid: {same} and {run.teacher} are the same teacher: remove one of them")


def _check_effects(runs: Iterable[StudyRun]) -> None:
    """Raise `UserError` for two points that train the same."""
    found: dict[str, str] = {}
    for run in runs:
        settings = json.dumps({**run.config.resolve(), "name": ""})
        same = found.setdefault(settings, run.label)
        if same != run.label:
            raise UserError(f"study.grid: {same} and {run.label} train the same: no method uses what differs")


def _check_stated_once(hypotheses: Mapping[str, Hypothesis]) -> None:
    for one, other in combinations(hypotheses, 2):
        if hypotheses[one].has_same_claim(hypotheses[other]):
            raise UserError(
                f"study.hypotheses.{other} claims the same as {one} (one may come from the config's base): "
                "remove one, because Holm's correction would count both"
            )


def _check_known(key: str, named: Iterable[str], methods: Collection[str]) -> None:
    for method in named:
        if method not in methods:
            raise UserError(f"{key}: {method} is none of {', '.join(methods)}{suggest_nearest(method, methods)}")


def _check_measure(key: str, measure: str, run: StudyRun) -> None:
    known = list_measures(run.config)
    if measure in known:
        return
    listed = f"compare one of {', '.join(known)}"
    if measure in MEASURES:
        raise UserError(f"{key}: {measure} is not measured at {run.label}, {listed}")
    raise UserError(f"{key}: there is no {measure}{suggest_nearest(measure, known)} ({listed})")


def _check_choosable(run: StudyRun, key: str, tries: Iterable[str]) -> None:
    config, jobs = run.config, list_students(run.config, run.seed)
    if not config.data.val_fraction:
        raise UserError(f"{key}: choosing needs held-out images (data.val_fraction > 0)")
    for name in tries:
        if name in jobs and _uses_held_out(config, jobs[name]):
            raise UserError(f"{key}: {name} trains on the held-out images, which therefore cannot choose it")


def _uses_held_out(config: Config, job: JobName) -> bool:
    """Return True where a job, or one it depends on, trains on held-out images."""
    balanced = get_stage(config, job).images == "balanced"
    return balanced or any(_uses_held_out(config, source) for source in list_sources(config, job))


def is_recorded(run: StudyRun, folder: RunFolder) -> bool:
    """Return True where all models of a run are finished and recorded."""
    lasts = [find_last_job(run.config, method, run.seed) for method in run.config.methods]
    if not all(folder.get_job(job).is_finished for job in (TEACHER, *lasts)):
        return False
    recorded = {TEACHER.method: TEACHER, **list_students(run.config, run.seed)}
    hashes = {method: folder.get_job(job).read_result()["model_sha256"] for method, job in recorded.items()}
    return cue_recording_file.is_up_to_date(find_recording(run, folder), hashes)


def describe_study(study: StudyRuns) -> str:
    """Return the plan of a study in words, and write a contact sheet of each cue."""
    check_study(study)
    points: dict[str, Counter[str]] = {}
    made: set[str] = set()
    for run in study.mine:
        counts = points.setdefault(run.name.removesuffix(f"seed{run.seed}").rstrip("-") or "one point", Counter())
        counts["runs"] += 1
        counts["recorded"] += is_recorded(run, study.get_run_folder(run))
        for job in study.list_jobs(run):
            key = study.compute_fingerprint(run, job.name)
            shared = key in made or study.find_copy(run, job) is not None
            counts["finished" if job.folder.is_finished else "shared" if shared else "to run"] += 1
            made.add(key)
    lines = [f"{point}: {_describe_counts(counts)}" for point, counts in points.items()]
    whole = "this shard" if len(study.mine) < len(study.runs) else "in all"
    lines.append(f"{whole}: {_describe_counts(sum(points.values(), Counter[str]()))}")
    lines += [f"contact sheet: {path}" for path in _write_sheets(study)]
    stated = study.config.study.hypotheses
    lines += [_describe_hypothesis(*one) for one in stated.items()]
    return "\n".join(lines if stated else [*lines, "no hypothesis is stated (study.hypotheses)"])


def _describe_counts(counts: Counter[str]) -> str:
    trainings = (
        f"{counts['to run']} to run, {counts['shared']} shared with another run, {counts['finished']} finished"
    )
    return f"{counts['runs']} runs, {counts['recorded']} of them finished; trainings: {trainings}"


def _describe_hypothesis(name: str, stated: Hypothesis) -> str:
    where = ", ".join(f"{key} = {value}" for key, value in stated.where.items()) or "every point"
    bound = f"equivalent within ±{stated.margin:g}" if stated.exceeds is None else f"above {stated.exceeds:g}"
    return (
        f"hypothesis {name}, at {where}: {stated.measure} of {stated.first} minus that of {stated.second}, "
        f"paired by teacher and seed, {replace_hyphen(bound)}"
    )


def _write_sheets(study: StudyRuns) -> list[Path]:
    firsts = {run.config.shortcut.cue: run for run in reversed(study.runs) if run.config.shortcut.cue != "none"}
    paths = []
    for cue, run in firsts.items():
        name = f"{study.folder.name}-cues.png" if len(firsts) == 1 else f"{study.folder.name}-cues-{cue}.png"
        paths.append(study.folder.with_name(name))
        write_contact_sheet(study.open(run).data, paths[-1])
    return paths
