"""A job that is ready to be trained."""

from __future__ import annotations

from dataclasses import dataclass

from dataset.prepare import TrainingData
from errors import MachineError
from models.compiling import compile_blocks
from models.machine import Machine
from models.taps import TappedModel
from training.engine import Measures, Objective, Plan, fit
from training.job_folder import JobFolder

COMPILING = ("torch._dynamo", "torch._inductor", "triton")  # where errors of compiling come from


@dataclass(frozen=True)
class Prepared:
    """All that `fit` takes of a job: what it minimises, on which images, for how long."""

    objective: Objective
    data: TrainingData
    plan: Plan

    def fit(self, machine: Machine, folder: JobFolder) -> list[Measures]:
        """As `training.engine.fit`, on compiled blocks where the machine compiles.

        Raises:
            UserError: as `fit`.
            MachineError: blocks that torch cannot compile.
        """
        if machine.compile:
            tapped = [module for module in self.objective.modules() if isinstance(module, TappedModel)]
            compile_blocks(self.objective.model, [tap for module in tapped for tap in module.taps])
        try:
            return fit(self.objective, self.data, self.plan, machine, folder)
        except RuntimeError as error:
            if machine.compile and type(error).__module__.startswith(COMPILING):
                what = str(error).strip().partition("\n")[0]
                raise MachineError(f"compile=true: torch cannot do it ({what}): use compile=false") from error
            raise
