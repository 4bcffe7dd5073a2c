"""A job that is ready to be trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dataset.prepare import TrainingData
from errors import MachineError
from models.captured import capture_passes, release_passes
from models.compiling import compile_blocks
from models.machine import Machine
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
        """Compile the network's blocks where the machine compiles, or have a GPU capture its passes.

        Neither is done before it is needed. Gradients of several batches are added to each other, which a
        graph would write over; those of several processes are averaged by hooks, of which it has none; and no
        thread may ask the GPU for anything meanwhile, as the one does that takes batches from workers.
        """
        if machine.compile:
            network = self.network
            compile_blocks(self.objective.model, network.taps if isinstance(network, TappedModel) else ())
        elif self.plan.optimizer.accumulate == 1 and distributed.world_size() == 1 and not self.data.made_ahead:
            capture_passes(self.network, machine)

    @property
    def network(self) -> nn.Module:
        """What steps run: the trained network, with its taps where it has some."""
        tapped = (module for module in self.objective.modules() if isinstance(module, TappedModel))
        return next(tapped, self.objective.model)

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
        finally:
            release_passes(self.network)
