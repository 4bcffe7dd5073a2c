"""A job that is ready to be trained."""

from __future__ import annotations

from dataclasses import dataclass

from dataset.prepare import TrainingData
from errors import MachineError
from models.compiling import compile_blocks
from models.machine import Machine
from models.recorded import record_passes
from models.taps import TappedModel
from training import distributed
from training.engine import Measures, Objective, Plan, fit
from training.job_folder import JobFolder

COMPILING = ("torch._dynamo", "torch._inductor", "triton")  # where errors of compiling come from


@dataclass(frozen=True)
class Prepared:
    """All that `fit` takes of a job: what it minimises, on which images, for how long."""

    objective: Objective
    data: TrainingData
    plan: Plan

    def quicken(self, machine: Machine) -> None:
        """Compile the network's blocks where the machine compiles, or have a GPU record its passes.

        Neither is done before it is needed. Gradients of several batches are added to each other, which a
        recording would play over; those of several processes are averaged by hooks, of which it has none.
        """
        tapped = [module for module in self.objective.modules() if isinstance(module, TappedModel)]
        if machine.compile:
            compile_blocks(self.objective.model, [tap for module in tapped for tap in module.taps])
        elif self.plan.optimizer.accumulate == 1 and distributed.world_size() == 1:
            record_passes(tapped[0] if tapped else self.objective.model, machine)

    def fit(self, machine: Machine, folder: JobFolder) -> list[Measures]:
        """As `training.engine.fit`, as quick as the machine can.

        Raises:
            UserError: as `fit`.
            MachineError: blocks that torch cannot compile.
        """
        self.quicken(machine)
        try:
            return fit(self.objective, self.data, self.plan, machine, folder)
        except RuntimeError as error:
            if machine.compile and type(error).__module__.startswith(COMPILING):
                what = str(error).strip().partition("\n")[0]
                raise MachineError(f"compile=true: torch cannot do it ({what}): use compile=false") from error
            raise
