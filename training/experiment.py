"""An experiment: config, data, machine, run folder, and its networks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from dataset.prepare import TrainingData, prepare
from dataset.sources import Source, load_source
from errors import UserError
from models.checkpoint import load_weights
from models.connector import ConnectedStudent, ConnectorSizes
from models.inputs import InputFormat, add_input_adapter, round_to_float32
from models.layout import Layout, infer_layout
from models.machine import Machine
from models.norms import set_momentum
from models.zoo import build_for, build_model, find_published
from settings.networks import Network, connect
from settings.own_code import digest_code
from settings.schema import Config
from training.engine import seed_everything
from training.job_name import JobName, has_connector, uses_teacher_network
from training.run.job_folder import JobFolder
from training.run.run_folder import RunFolder


@dataclass(frozen=True)
class Experiment:
    """The inputs of a phase."""

    config: Config
    data: TrainingData
    machine: Machine
    folder: RunFolder
    layouts: dict[str, Layout] = field(default_factory=dict, compare=False, repr=False)  # by network

    def find_network(self, job: JobName) -> Network:
        """Return the config's section on the network that a job trains."""
        if uses_teacher_network(self.config, job):
            return self.config.teacher
        return connect(self.config.student) if has_connector(self.config, job) else self.config.student

    def find_layout(self, network: Network) -> Layout:
        """Return the layout of a network, inferred once.

        Raises:
            UserError: images that are too small for it, or taps that it does not have.
        """
        key = f"{network.has_connector} {network.model_dump_json(include={*Network.model_fields})}"
        if key not in self.layouts:
            seen = self.find_input_format(network)
            model = build_for(lambda size: self._build(network, None, replace(seen, size=size), size), seen.size)
            self.layouts[key] = infer_layout(model, self.config.data.image_size, network.taps)
        return self.layouts[key]

    def build(self, network: Network, pretrained: bool = True) -> nn.Module:
        """Return a network for this data set on the CPU, with any published weights.

        pretrained: load `network.weights`; not needed where other weights replace them.
        """
        seen = self.find_input_format(network)
        return self._build(network, network.weights if pretrained else None, seen, seen.size)

    def find_input_format(self, network: Network) -> InputFormat:
        """Return the size and normalisation of a network's images.

        They are its own, those of its published weights, or the data's.
        """
        data = self._data_input
        made_for = None if network.weights is None else find_published(network.arch, network.weights)
        mean, std, size = data.mean, data.std, data.size
        if isinstance(network.mean, list) and isinstance(network.std, list):
            mean, std = round_to_float32(network.mean), round_to_float32(network.std)
        elif network.mean is None and made_for is not None:
            mean, std = round_to_float32(made_for.mean), round_to_float32(made_for.std)
        if network.image_size == "weights" and made_for is not None:
            size = made_for.size
        elif isinstance(network.image_size, int):
            size = network.image_size
        return InputFormat(size, mean, std)

    def list_dependencies(self, network: Network) -> dict[str, Any]:
        """Return plain values that outputs depend on beside arch, weights and images.

        They are empty for a network by name that reads images as the data have them.
        """
        parts: dict[str, Any] = {}
        if network.arch_options:
            parts["options"] = network.arch_options
        if code := digest_code("arch", network.arch):
            parts["code"] = code
        if network.has_connector:
            parts["connector"] = self.config.teacher.arch
        seen = self.find_input_format(network)
        if seen != self._data_input:
            parts["input"] = [seen.size, list(seen.mean), list(seen.std)]
        return parts

    @property
    def _data_input(self) -> InputFormat:
        data = self.data
        mean, std = round_to_float32(data.mean.tolist()), round_to_float32(data.std.tolist())
        return InputFormat(self.config.data.image_size, mean, std)

    def _build(self, network: Network, weights: str | None, seen: InputFormat, size: int) -> nn.Module:
        model = build_model(
            network.arch,
            self.data.num_classes,
            stem=network.stem,
            weights=weights,
            image_size=size,
            options=network.arch_options,
        )
        model = set_momentum(model, network.norm_momentum)
        if network.has_connector:
            model = ConnectedStudent(model, self.find_connector_sizes())
        return add_input_adapter(model, self._data_input, seen)

    def find_connector_sizes(self) -> ConnectorSizes:
        """Return the shapes that a connector joins: of the student's last map and of the teacher's.

        Raises:
            UserError: a network without maps, or a teacher whose classifier does not read its last map averaged.
        """
        student, teacher = self.find_layout(self.config.student), self.find_layout(self.config.teacher)
        place = student.find_place("last_stage", as_map=True)
        last = teacher.find_shape(teacher.find_place("last_stage", as_map=True))
        if not teacher.structure.reads_vector or last[:1] != teacher.find_shape(teacher.find_place("features")):
            raise UserError(
                f"connector: the teacher's classifier ({teacher.name}) does not read its last map averaged over "
                "positions: use another teacher, or a method without a connector"
            )
        return ConnectorSizes(place, student.find_shape(place), last, self.data.num_classes)

    def build_student(self, seed: int, network: Network | None = None) -> nn.Module:
        """Return the student that every method with this seed starts from, on the device.

        network: the student's section, or that of a student with a connector.
        """
        seed_everything(seed)
        return self.machine.place(self.build(network or self.config.student))

    def load_trained(self, network: Network, job: JobFolder) -> nn.Module:
        """Return a finished job's network in evaluation mode on the device."""
        return self.load_network(network, job.verify_model())

    def load_network(self, network: Network, path: Path) -> nn.Module:
        """Return a network with the weights of a file, in evaluation mode on the device.

        Raises:
            UserError: a file that cannot be read or does not fit.
        """
        model = self.build(network, pretrained=False)
        load_weights(model, path, network.arch)
        return self.machine.place(model).eval()


def open_experiment(
    config: Config,
    folder: RunFolder,
    machine: Machine,
    source: Source | None = None,
    layouts: dict[str, Layout] | None = None,
) -> Experiment:
    """Return an experiment on the images of its config.

    Args:
        source: the decoded images, where they are known already.
        layouts: of an experiment on the same images with the same networks, to which new ones are added.

    Raises:
        UserError: images that are missing or do not fit the config.
    """
    images = load_source(config.data) if source is None else source
    data = prepare(images, config.data, machine.device, config.shortcut)
    return Experiment(config, data, machine, folder, {} if layouts is None else layouts)
