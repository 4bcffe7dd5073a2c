"""The one list of options, typed, ranged and described: what a config holds, and what of it goes together.

`python main.py --help-config` prints it as a table; `configs.reading` reads YAML files into it. Its sections are
in `stages`, `networks`, `images` and `study`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from configs.images import Data, Shortcut
from configs.merge import merge
from configs.names import RunName, VariantName
from configs.networks import Student, Teacher
from configs.section import NonNegative, Section, Seed, Weighted, about
from configs.stages import ALIGNED, CRD, KD, METHODS, NO_WEIGHTS, Baselines, Method, Variant
from configs.stopping import check_stopping
from configs.study import Study

RESERVED = ("teacher", "stage1", "stage2", "two_stage", *METHODS)  # names that no variant may take


class Config(Section):
    name: RunName = about("digits", "name of the run: files go to OUTPUT_DIR/name")
    seeds: Annotated[list[Seed], Field(min_length=1)] = about([0], "training seeds of the student side")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = about(
        "auto", "auto picks bfloat16 where the hardware multiplies it natively; float16 scales losses"
    )
    sync_batch_norm: bool = about(False, "under torchrun on GPUs: batch norm's statistics are of all processes")
    compile: bool = about(False, "torch.compile blocks in training: slow start, faster steps, other last bits")
    capture: bool = about(
        False,
        "on a GPU training passes are CUDA graphs: quicker for small networks, none may decide or draw on the CPU",
    )
    checkpoint_minutes: NonNegative = about(15.0, "minutes between checkpoints in an epoch, 0 = at signals alone")
    data: Data = about(Data(), "images")
    teacher: Teacher = about(Teacher(), "the frozen teacher")
    student: Student = about(Student(), "the student")
    crd: CRD = about(CRD(), "stage 1")
    kd: KD = about(KD(), "stage 2")
    baselines: Baselines = about(Baselines(), "end-to-end baselines on the same budget")
    shortcut: Shortcut = about(Shortcut(), "planted cues")
    variants: dict[VariantName, Variant] = about(
        {}, "further two-stage students by name, each with what differs from crd and kd"
    )
    study: Study = about(Study(), "runs of --phase study")

    def variant(self, name: str) -> Config:
        """This config with the fields of crd and kd that a variant changes."""
        changes = self.variants[name]
        return self.model_copy(
            update={
                "crd": CRD.model_validate(merge(self.crd.model_dump(), changes.crd)),
                "kd": KD.model_validate(merge(self.kd.model_dump(), changes.kd)),
            }
        )

    def baseline(self, name: str) -> Config:
        """This config with what an end-to-end variant changes; a method's own name changes nothing."""
        if name not in self.baselines.variants:
            return self
        changes = self.baselines.variants[name]
        return self.model_copy(
            update={
                "crd": CRD.model_validate(merge(self.crd.model_dump(), changes.crd)),
                "baselines": Baselines.model_validate(merge(self.baselines.model_dump(), changes.baselines)),
            }
        )

    def method_of(self, name: str) -> Method:
        """Which baseline an end-to-end method is, given by its own name or a variant's."""
        variants = self.baselines.variants
        return variants[name].method if name in variants else TypeAdapter(Method).validate_python(name)

    @property
    def end_to_end(self) -> list[str]:
        """Names of the end-to-end baselines, variants last."""
        return [*self.baselines.methods, *self.baselines.variants]

    @property
    def baseline_epochs(self) -> int:
        """Epochs of each baseline: its own setting, or the budget of the two stages."""
        return self.baselines.epochs or self.crd.epochs + self.kd.epochs

    @property
    def baseline_alpha(self) -> float:
        """Share of the KL term in kd and crd_kd: its own setting, or stage 2's."""
        return self.kd.alpha if self.baselines.alpha is None else self.baselines.alpha

    @property
    def baseline_temperature(self) -> float:
        """T of the KL term in kd and crd_kd: its own setting, or stage 2's."""
        return self.baselines.temperature or self.kd.temperature

    @property
    def baseline_smoothing(self) -> float:
        """Label smoothing of all baselines: its own setting, or stage 2's."""
        own = self.baselines.label_smoothing
        return self.kd.label_smoothing if own is None else own

    def resolved(self) -> Config:
        """The same with what the baselines take from the two stages written out."""
        followed = {
            "epochs": self.baseline_epochs,
            "alpha": self.baseline_alpha,
            "temperature": self.baseline_temperature,
            "label_smoothing": self.baseline_smoothing,
        }
        return self.model_copy(update={"baselines": self.baselines.model_copy(update=followed)})

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.compile and self.capture:
            raise ValueError("compile and capture do not go together: use one of them")
        check_stopping("", self.data, self.shortcut, self.teacher, self.crd, self.kd, self.baselines)
        if self.shortcut.pairs == "counterfactual" and self.teacher.views > 0:
            raise ValueError("shortcut.pairs: counterfactual needs a live teacher: set teacher.views=0")
        self._check_mix()
        self.baselines.optimizer.check_warmup(self.baseline_epochs)
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each seed once")
        for name in self.variants:
            self._check_variant(name)
        for name in self.baselines.variants:
            self._check_baseline(name)
        for name in self.end_to_end:
            self._check_weighted(name)
        self._check_errors_of("crd", self.crd)
        self._check_errors_of("kd", self.kd)
        return self

    def _check_mix(self) -> None:
        """What is drawn anew each step is in no cache of a teacher's outputs or of frozen features."""
        mix = self.data.mix
        if mix != "none" and self.teacher.views > 0:
            raise ValueError(f"data.mix: {mix} needs a live teacher: set teacher.views=0")
        for name in ("", *self.variants) if mix != "none" else ():
            key, own = (f"variants.{name}.kd", self.variant(name)) if name else ("kd", self)
            if own.kd.train == "head":
                raise ValueError(
                    f"data.mix: {mix} needs {key}.train: last_block or all, heads alone see no images"
                )

    def _check_errors_of(self, key: str, section: Weighted) -> None:
        if section.errors_of is not None and section.errors_of not in self.end_to_end:
            known = ", ".join(self.end_to_end) or "none"
            raise ValueError(
                f"{key}.errors_of: {section.errors_of} is no end-to-end baseline of this run: {known}"
            )

    def _check_weighted(self, name: str) -> None:
        """A method that is trained on another's errors comes after it, so no chain may end where it began."""
        key = "baselines" if name in METHODS else f"baselines.variants.{name}.baselines"
        own, seen, last = self.baseline(name), [name], self.baseline(name).baselines.errors_of
        self._check_errors_of(key, own.baselines)
        if last is not None and self.method_of(name) in ALIGNED and own.crd.from_bank:
            raise ValueError(f"{key}: {NO_WEIGHTS}")
        while last is not None and last in self.end_to_end:
            if last in seen:
                raise ValueError(f"{key}.errors_of: {last} would wait for itself: {' -> '.join([*seen, last])}")
            seen.append(last)
            last = self.baseline(last).baselines.errors_of

    def _check_baseline(self, name: str) -> None:
        if name in RESERVED or name in self.variants:
            raise ValueError(f"baselines.variants.{name}: the name is taken, choose another")
        if {"methods", "variants"} & set(self.baselines.variants[name].baselines):
            raise ValueError(f"baselines.variants.{name}: methods and variants have no place in one of them")
        if {"errors_of", "error_weight"} & set(self.baselines.variants[name].crd):
            raise ValueError(
                f"baselines.variants.{name}: crd.errors_of is of stage 1, use baselines: {{errors_of: ...}}"
            )
        own = _validated(f"baselines.variants.{name}", lambda: self.baseline(name))
        check_stopping(f"baselines.variants.{name}.", self.data, self.shortcut, own.baselines)

    def _check_variant(self, name: str) -> None:
        if name in RESERVED:
            raise ValueError(f"variants.{name}: the name is taken, choose another")
        own = _validated(f"variants.{name}", lambda: self.variant(name))
        self._check_errors_of(f"variants.{name}.crd", own.crd)
        self._check_errors_of(f"variants.{name}.kd", own.kd)
        kd = own.kd
        check_stopping(f"variants.{name}.", self.data, self.shortcut, own.crd, kd)
        if kd.features in METHODS and kd.features not in self.baselines.methods:
            raise ValueError(f"variants.{name}: {kd.features} is not among baselines.methods")
        if kd.images == "balanced" and self.data.val_fraction == 0:
            raise ValueError(f"variants.{name}: images: balanced needs data.val_fraction > 0")
        given = self.variants.get(kd.teacher_head or "")
        if kd.teacher_head and (given is None or self.variant(kd.teacher_head).kd.features != "teacher"):
            raise ValueError(f"variants.{name}: teacher_head names no variant with features: teacher")


def _validated(where: str, make: Callable[[], Config]) -> Config:
    """What `make` gives, or a ValueError that says in which variant a value is wrong."""
    try:
        return make()
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, [error.title.lower(), *problem["loc"]]))
        raise ValueError(f"{where}.{key}: {problem['msg'].removeprefix('Value error, ')}") from None
