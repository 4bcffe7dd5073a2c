"""An experiment: its config, data, machine and run folder, and the networks that its phases share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from configs.schema import Config, Network
from dataset.prepare import TrainingData
from models.checkpoint import load_weights
from models.machine import Machine
from models.taps import TappedModel, default_taps
from models.zoo import build_model
from training.engine import seed_everything
from training.job_folder import JobFolder
from training.run_folder import RunFolder, stage_job


@dataclass(frozen=True)
class Experiment:
    """All that a phase needs to know."""

    config: Config
    data: TrainingData
    machine: Machine
    folder: RunFolder

    def variant(self, name: str) -> Experiment:
        """The same with a variant's settings, and its own folders as those of stage 1 and 2."""
        stages = {stage: stage_job(self.config, stage, name) for stage in ("stage1", "stage2")}
        return replace(self, config=self.config.variant(name), folder=replace(self.folder, renamed=stages))

    def build(self, network: Network) -> nn.Module:
        """A network for this data set, with fresh (or torchvision's) weights, on the CPU."""
        return build_model(
            network.arch,
            self.data.num_classes,
            stem=network.stem,
            weights=network.weights,
            image_size=self.config.data.image_size,
        )

    def new_student(self, seed: int) -> nn.Module:
        """The student as every method with this seed starts from, on the device."""
        seed_everything(seed)
        return self.machine.place(self.build(self.config.student))

    def trained(self, network: Network, job: JobFolder) -> nn.Module:
        """A finished job's network in evaluation mode on the device."""
        model = self.build(network.model_copy(update={"weights": None}))
        load_weights(model, job.model, network.arch)
        return self.machine.place(model).eval()

    def tapped(self, model: nn.Module, network: Network) -> TappedModel:
        """A network that also gives its taps: those of the config, or its last two blocks."""
        return self.machine.place(TappedModel(model, network.taps or default_taps(model)))
