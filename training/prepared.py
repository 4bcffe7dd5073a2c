"""A job that is ready to be trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dataset.prepare import TrainingData
from errors import MachineError, warn
from models.captured import capture_passes, release_passes
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

    def quicken(self, machine: Machine) -> None:
        """Compile the network's blocks, or have its passes captured, as the machine says: both when first run.

        Gradients of several batches are added to each other, which a graph would write over, and no thread may ask
        the GPU for anything meanwhile, as the one does that takes batches from workers: there a word says so.
        """
        if machine.compile:
            network = self.network
            compile_blocks(self.objective.model, network.taps if isinstance(network, TappedModel) else ())
        if machine.capture and self.plan.optimizer.accumulate > 1:
            warn("capture=true counts for nothing with several batches a step (optimizer.accumulate)")
        elif machine.capture and self.data.uses_workers:
            warn("capture=true counts for nothing with data.workers, whose batches a thread brings")
        elif machine.capture:
            capture_passes(self.network)

    @property
    def network(self) -> nn.Module:
        """What steps run: the trained network, with its taps where it has some."""
        tapped = (module for module in self.objective.modules() if isinstance(module, TappedModel))
        return next(tapped, self.objective.model)

    def fit(self, machine: Machine, folder: JobFolder) -> list[Measures]:
        """As `training.engine.fit`, as quick as the machine can.

        Raises:
            UserError: as `fit`.
            MachineError: blocks that torch cannot compile, or passes that a GPU cannot capture.
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
