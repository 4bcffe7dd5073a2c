"""An experiment: its config, data, machine and run folder, and the networks that its phases share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from configs.networks import Network
from configs.schema import Config
from dataset.prepare import TrainingData, prepare
from dataset.sources import Source, load_source
from models.checkpoint import load_weights
from models.machine import Machine
from models.taps import TappedModel, default_taps
from models.zoo import build_model
from training.engine import seed_everything
from training.job_folder import JobFolder
from training.job_name import stage1_of, stage2
from training.run_folder import RunFolder


@dataclass(frozen=True)
class Experiment:
    """All that a phase needs to know."""

    config: Config
    data: TrainingData
    machine: Machine
    folder: RunFolder
    variant: str = ""  # whose settings `config` has, empty for two_stage itself

    def of_variant(self, name: str) -> Experiment:
        """The same with a variant's settings; its stages have folders of their own."""
        return replace(self, config=self.config.variant(name), variant=name) if name else self

    def key(self, name: str) -> str:
        """Where the config has a setting of crd or kd for this experiment's variant alone."""
        return f"variants.{self.variant}.{name}" if self.variant else name

    def stage1(self, seed: int) -> JobFolder:
        """The stage 1 of this experiment's variant: its own, or the one that it shares."""
        return self.folder.job(stage1_of(self.config, seed, self.variant))

    def stage2(self, seed: int) -> JobFolder:
        return self.folder.job(stage2(seed, self.variant))

    def build(self, network: Network, pretrained: bool = True) -> nn.Module:
        """A network for this data set on the CPU, with random weights or those of torchvision that are named.

        pretrained: whether `network.weights` count; not where other weights are loaded over them.
        """
        return build_model(
            network.arch,
            self.data.num_classes,
            stem=network.stem,
            weights=network.weights if pretrained else None,
            image_size=self.config.data.image_size,
        )

    def new_student(self, seed: int) -> nn.Module:
        """The student as every method with this seed starts from, on the device."""
        seed_everything(seed)
        return self.machine.place(self.build(self.config.student))

    def trained(self, network: Network, job: JobFolder) -> nn.Module:
        """A finished job's network in evaluation mode on the device."""
        return self.loaded(network, job.verified_model())

    def loaded(self, network: Network, path: Path) -> nn.Module:
        """A network with the weights of a file, in evaluation mode on the device.

        Raises:
            UserError: a file that cannot be read or does not fit.
        """
        model = self.build(network, pretrained=False)
        load_weights(model, path, network.arch)
        return self.machine.place(model).eval()

    def tapped(self, model: nn.Module, network: Network) -> TappedModel:
        """A network that also gives its taps: those of the config, or `default_taps`."""
        return self.machine.place(TappedModel(model, network.taps or default_taps(model)))


def open_experiment(
    config: Config, folder: RunFolder, machine: Machine, source: Source | None = None
) -> Experiment:
    """An experiment on the images that its config names, decoded here unless `source` has them already.

    Raises:
        UserError: images that are missing or do not fit the config.
    """
    images = load_source(config.data) if source is None else source
    return Experiment(config, prepare(images, config.data, machine.device, config.shortcut), machine, folder)
