"""What a study consists of, what of it is done, and what a start would do (`--dry-run`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path

from configs.schema import Config
from configs.study import Hypothesis
from dataset.contact_sheet import write_contact_sheet
from dataset.sources import Source, load_source
from diagnostics.seeds import typographic
from diagnostics.shortcut import recording_file
from errors import UserError
from models.machine import Machine
from study.grid import Shard, StudyRun, agrees, runs_of
from study.methods import methods_of, record_folder
from study.sharing import fingerprint
from training.experiment import Experiment, open_experiment
from training.job_folder import JobFolder
from training.job_name import TEACHER, config_of
from training.phases import Job, check, jobs_of
from training.run_folder import RunFolder


@dataclass(frozen=True)
class StudyRuns:
    """A study to run: all of its runs, those of this shard, and where they go."""

    config: Config
    folder: Path
    machine: Machine
    shard: Shard = Shard()
    sources: dict[str, Source] = field(default_factory=dict)  # decoded images by data section

    @cached_property
    def runs(self) -> list[StudyRun]:
        return runs_of(self.config)

    @cached_property
    def mine(self) -> list[StudyRun]:
        """The runs of this shard; those that share a teacher are in the same."""
        return self.shard.take(self.runs, lambda run: fingerprint(run.config, TEACHER))

    @cached_property
    def same(self) -> dict[str, list[JobFolder]]:
        """Jobs of all runs by what they are made from."""
        found: dict[str, list[JobFolder]] = {}
        for run in self.runs:
            for job in self.jobs(run):
                found.setdefault(fingerprint(run.config, job.name), []).append(job.folder)
        return found

    def run_folder(self, run: StudyRun) -> RunFolder:
        return RunFolder(self.folder / run.name)

    def jobs(self, run: StudyRun) -> list[Job]:
        return jobs_of("all", run.config, self.run_folder(run))

    def open(self, run: StudyRun) -> Experiment:
        data = run.config.data
        key = data.model_dump_json()
        if key not in self.sources:
            self.sources[key] = load_source(data)
        return open_experiment(run.config, self.run_folder(run), self.machine, self.sources[key])

    def twin(self, run: StudyRun, job: Job) -> JobFolder | None:
        """A finished job of another run with the same ingredients."""
        found = self.same[fingerprint(run.config, job.name)]
        return next((other for other in found if other != job.folder and other.finished), None)


def check_study(study: StudyRuns) -> None:
    """See that methods which are named exist, that nothing is stated twice, and that each point can be trained.

    Raises:
        UserError: the first that is not so.
    """
    firsts = [run for run in study.runs if run.seed == study.config.seeds[0]]
    for run in firsts:
        methods = methods_of(run.config, run.seed)
        for name, stated in study.config.study.hypotheses.items():
            if agrees(run.point, stated.where):
                _see_known(f"study.hypotheses.{name}", (stated.first, stated.second), methods)
    _see_stated_once(study.config.study.hypotheses)
    known = list(dict.fromkeys(method for run in firsts for method in methods_of(run.config, run.seed)))
    for pair in study.config.study.twins.items():
        _see_known("study.twins", pair, known)
    for family, tries in study.config.study.tries.items():
        _see_known(f"study.tries.{family}", tries, known)
        for run in firsts:
            _see_choosable(run, f"study.tries.{family}", tries)
    for run in firsts:
        check("all", study.open(run))


def _see_stated_once(hypotheses: Mapping[str, Hypothesis]) -> None:
    for one, other in combinations(hypotheses, 2):
        if hypotheses[one].says(hypotheses[other]):
            raise UserError(
                f"study.hypotheses.{other} claims what {one} does (one may come from the config's base): "
                "remove one of them, since Holm's correction counts both"
            )


def _see_known(key: str, named: Iterable[str], methods: Collection[str]) -> None:
    for method in named:
        if method not in methods:
            raise UserError(f"{key}: {method} is none of {', '.join(methods)}")


def _see_choosable(run: StudyRun, key: str, tries: Iterable[str]) -> None:
    config, jobs = run.config, methods_of(run.config, run.seed)
    if not config.data.val_fraction:
        raise UserError(f"{key}: choosing needs held-out images (data.val_fraction > 0)")
    on_held_out = [name for name in config.variants if config.variant(name).kd.images == "balanced"]
    for name in tries:
        if name not in jobs or jobs[name].kind != "stage2":
            continue
        kd = config_of(config, jobs[name]).kd
        if kd.images == "balanced" or kd.teacher_head in on_held_out:
            raise UserError(f"{key}: {name} trains on the held-out images, which then cannot choose it")


def is_recorded(run: StudyRun, folder: RunFolder) -> bool:
    """Whether all models of a run are finished, and recorded as they are."""
    jobs = {method: folder.job(name) for method, name in methods_of(run.config, run.seed).items()}
    jobs["teacher"] = folder.teacher
    if not all(job.finished for job in jobs.values()):
        return False
    hashes = {method: job.result()["model_sha256"] for method, job in jobs.items()}
    return recording_file.up_to_date(record_folder(run, folder), hashes)


def describe_study(study: StudyRuns) -> str:
    """What a start would do, for `--dry-run`; with planted cues it writes a contact sheet of each kind."""
    check_study(study)
    runs, mine = study.runs, study.mine
    points: dict[str, Counter[str]] = {}
    made: set[str] = set()
    for run in mine:
        counts = points.setdefault(run.name.removesuffix(f"seed{run.seed}").rstrip("-") or "one point", Counter())
        counts["runs"] += 1
        counts["recorded"] += is_recorded(run, study.run_folder(run))
        for job in study.jobs(run):
            key = fingerprint(run.config, job.name)
            twin = key in made or study.twin(run, job) is not None
            counts["finished" if job.folder.finished else "to copy" if twin else "to train"] += 1
            made.add(key)
    lines = [f"{point}: {_counted(counts)}" for point, counts in points.items()]
    total = sum(points.values(), Counter[str]())
    lines.append(f"this shard: {_counted(total)}" if len(mine) < len(runs) else f"in all: {_counted(total)}")
    lines += [f"contact sheet: {path}" for path in _write_sheets(study)]
    stated = study.config.study.hypotheses
    lines += [_stated(name, one) for name, one in stated.items()] or ["no hypothesis is stated (study.hypotheses)"]
    return "\n".join(lines)


def _counted(counts: Counter[str]) -> str:
    jobs = ", ".join(f"{counts[key]} {key}" for key in ("to train", "to copy", "finished"))
    return f"{counts['runs']} runs, {counts['recorded']} of them recorded; jobs: {jobs}"


def _stated(name: str, stated: Hypothesis) -> str:
    where = ", ".join(f"{key} = {value}" for key, value in stated.where.items()) or "every point"
    bound = f"equivalent within ±{stated.margin:g}" if stated.exceeds is None else f"above {stated.exceeds:g}"
    return (
        f"hypothesis {name}, at {where}: {stated.measure} of {stated.first} minus that of {stated.second}, "
        f"paired by seed, {typographic(bound)}"
    )


def _write_sheets(study: StudyRuns) -> list[Path]:
    firsts = {run.config.shortcut.cue: run for run in reversed(study.runs) if run.config.shortcut.cue != "none"}
    paths = []
    for cue, run in firsts.items():
        name = f"{study.folder.name}-cues.png" if len(firsts) == 1 else f"{study.folder.name}-cues-{cue}.png"
        paths.append(study.folder.with_name(name))
        write_contact_sheet(study.open(run).data, paths[-1])
    return paths
