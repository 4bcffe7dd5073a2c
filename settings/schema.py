"""All options of a config with types, ranges and descriptions, and the rules on how they combine.

`python main.py --help-config` prints them as a table; `settings.reading` reads YAML files into a `Config`. Its
sections are in `stages`, `networks`, `images` and `study`; options of a loss are in its own file (`losses/`).
"""

from __future__ import annotations

from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from settings.images import Data, Shortcut
from settings.methods import normalise_methods, resolve_stages
from settings.networks import Student, Teacher
from settings.section import MethodName, NonNegative, RunName, Section, Seed, describe_problem, option
from settings.stages import Stage, Trained, Training
from settings.study import Study

TEACHER = "teacher"
TAKEN = {TEACHER, "stage1"}  # names of models in reports that no method may take


class Config(Section):
    name: RunName = option("digits", "name of the run: files go to OUTPUT_DIR/name")
    seeds: Annotated[list[Seed], Field(min_length=1)] = option([0], "training seeds of the student side")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "auto picks bfloat16 where the hardware multiplies it natively; float16 scales losses"
    )
    sync_batch_norm: bool = option(False, "under torchrun on GPUs: batch norm's statistics are of all processes")
    compile: bool = option(False, "torch.compile blocks in training: slow start, faster steps, other last bits")
    cuda_graphs: bool = option(
        False, "capture training passes as CUDA graphs: faster for small networks, which may not use the CPU"
    )
    checkpoint_minutes: NonNegative = option(15.0, "minutes between checkpoints in an epoch, 0 = at signals alone")
    data: Data = option(Data(), "images")
    teacher: Teacher = option(Teacher(), "the frozen teacher")
    student: Student = option(Student(), "the student")
    losses: dict[str, dict[str, Any]] = option({}, "options of losses by name, for every stage that uses them")
    training: Training = option(Training(), "defaults of every stage of a student")
    methods: dict[MethodName, dict[str, Any]] = option(
        {}, "methods by name: shipped ones (configs/methods), lists of stages, or what differs from another"
    )
    shortcut: Shortcut = option(Shortcut(), "planted cues")
    study: Study = option(Study(), "runs of --phase study")

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, values: Any) -> Any:
        if isinstance(values, dict) and "methods" in values:
            return {**values, "methods": normalise_methods(values["methods"], {})}
        return values

    @cached_property
    def stages(self) -> dict[str, tuple[Stage, ...]]:
        """The stages of each method, with every option.

        Raises:
            ValueError: a method that does not fit; the message names it.
        """
        training = self.training.model_dump()
        found = {}
        for name in self.methods:
            try:
                resolved = resolve_stages(name, self.methods, training, self.losses)
            except ValueError as error:
                raise ValueError(f"methods.{name}: {error}") from None
            found[name] = tuple(
                _read_stage(f"methods.{name}.stage{number}", stage) for number, stage in enumerate(resolved, 1)
            )
        return found

    @property
    def teacher_stage(self) -> Stage:
        """The teacher's own training, as a stage."""
        own = self.teacher.model_dump(include={*Trained.model_fields, "epochs", "losses"})
        own["losses"] = {name: {**self.losses.get(name, {}), **use} for name, use in own["losses"].items()}
        return Stage.model_validate(own)

    def resolve(self) -> dict[str, Any]:
        """Return all that a run depends on as plain values, methods as stages."""
        values = self.model_dump(mode="json", exclude={"losses", "training", "methods"})
        values["teacher"]["losses"] = self.teacher_stage.model_dump(mode="json")["losses"]
        values["methods"] = {
            name: {f"stage{number}": stage.model_dump(mode="json") for number, stage in enumerate(stages, 1)}
            for name, stages in self.stages.items()
        }
        return values

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.compile and self.cuda_graphs:
            raise ValueError("compile and cuda_graphs do not go together: use one of them")
        if self.shortcut.pairs == "counterfactual" and self.teacher.cached_views > 0:
            raise ValueError("shortcut.pairs: counterfactual needs a live teacher: set teacher.cached_views=0")
        if self.data.mix != "none" and self.teacher.cached_views > 0:
            raise ValueError(f"data.mix: {self.data.mix} needs a live teacher: set teacher.cached_views=0")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each seed once")
        for name in TAKEN & self.methods.keys():
            raise ValueError(f"methods.{name}: the name is taken, choose another")
        self._check_stopping("teacher", self.teacher)
        for name, stages in self.stages.items():
            for number, stage in enumerate(stages, start=1):
                self._check_stage(f"methods.{name}.stage{number}", number, stage)
        self._check_order()
        return self

    def _check_stopping(self, key: str, settings: Trained) -> None:
        """Refuse early stopping without validation images."""
        if settings.early_stopping is None:
            return
        if self.data.val_fraction == 0:
            raise ValueError(f"{key}.early_stopping needs data.val_fraction > 0, test data decides nothing")
        if self.shortcut.cue != "none":
            raise ValueError(f"{key}.early_stopping has no validation images where a cue is planted")

    def _check_stage(self, key: str, number: int, stage: Stage) -> None:
        self._check_stopping(key, stage)
        if stage.train == "head" and self.data.mix != "none":
            raise ValueError(
                f"data.mix: {self.data.mix} needs {key}.train: last_block or all, heads alone see no images"
            )
        if stage.images == "balanced" and self.data.val_fraction == 0:
            raise ValueError(f"{key}.images: balanced needs data.val_fraction > 0")
        for name in ("upweight_errors_of", "starts_from", "teacher"):
            method = getattr(stage, name)
            if method is not None and method not in self.methods and (name, method) != ("starts_from", TEACHER):
                known = ", ".join(self.methods) or "none"
                raise ValueError(f"{key}.{name}: {method} is no method of this run: {known}")
        if stage.starts_from is not None and number > 1:
            raise ValueError(f"{key}.starts_from: a later stage goes on from the one before, set it in stage1")
        if stage.starts_from == TEACHER and stage.train != "head":
            raise ValueError(f"{key}.starts_from: teacher needs train: head")
        if stage.teacher is not None and self.stages[stage.teacher][0].starts_from != TEACHER:
            raise ValueError(
                f"{key}.teacher: {stage.teacher} does not start from the teacher (starts_from: teacher)"
            )

    def _check_order(self) -> None:
        """Refuse methods that wait for each other."""
        waits = {
            name: {one for stage in stages for one in list_prerequisites(stage)}
            for name, stages in self.stages.items()
        }
        try:
            TopologicalSorter(waits).prepare()
        except CycleError as error:
            cycle = error.args[1][::-1]  # each waits for the next
            raise ValueError(f"methods.{cycle[0]}: it would wait for itself: {' -> '.join(cycle)}") from None


def list_prerequisites(stage: Stage) -> list[str]:
    """Return the methods whose results a stage needs."""
    named = (stage.starts_from, stage.upweight_errors_of, stage.teacher)
    return [one for one in named if one is not None and one != TEACHER]


def _read_stage(key: str, values: dict[str, Any]) -> Stage:
    try:
        return Stage.model_validate(values)
    except ValidationError as error:
        message = describe_problem(error, Stage, f"{key}.")
        if error.errors()[0]["type"] == "model_type" and ".losses." in message:
            message = f"{message}: give its weight, or a section such as {{weight: 1, ramp_up: 5}}"
        raise ValueError(message) from None
