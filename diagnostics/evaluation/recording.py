"""Recordings of networks on the test images, so that reports need none.

Letters: N test images, C classes, D channels, M images of the layer sample, P training images of the probe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from dataset.corruptions import DEGRADATIONS, SEVERITIES
from dataset.images import ImageTensors
from dataset.prepare import NO_REPEATS, TrainingData
from dataset.repeats import Repeats
from dataset.views.augment import make_generator, normalise
from diagnostics.budget import TrainingBudget
from diagnostics.cost import Cost, measure_costs
from diagnostics.differing import Classifier, ShownImages, choose_positions, copy_pixels
from diagnostics.robustness import DegradedImages
from models.machine import Machine
from models.structure import find_structure
from models.taps import INPUT, TappedModel
from training.evaluation import EVALUATION_BATCH
from training.job_name import JobName

LAYER_SAMPLE = 2000  # test images of the layer-by-layer comparison
CORRUPTED_SAMPLE = 1000  # test images that are corrupted
COST_SECONDS = 0.5  # of repeated passes a batch size
PROBE_SAMPLE = 5000  # training images, not augmented, of the linear probe and of the generalisation gap

History = Sequence[Mapping[str, int | float]]  # measures of each epoch; int first: an epoch stays one


@dataclass(frozen=True)
class EvaluatedModel:
    """A network to evaluate."""

    name: str  # unique, such as "two_stage" or "two_stage/1" with a seed other than the first
    method: str
    seed: int | None  # None for the teacher
    arch: str
    weights_hash: str
    classifies: bool  # False for stage 1, whose classifier is untrained
    detailed: bool  # corruptions and cost are measured too
    taps: Sequence[str] | None  # places of penultimate and last, None to find them
    history: History
    build: Callable[[], nn.Module]  # gives the network on its device
    stem: str = ""  # see the config's `stem`
    made_with: Mapping[str, Any] = field(default_factory=dict)  # see `Experiment.list_dependencies`
    projections: Mapping[str, Tensor] | None = None  # stage 1's linear maps
    stage1: History = ()  # measures of the stage 1 that it started from
    trainings: list[TrainingBudget] | None = None  # stage after stage; None where not on record
    earlier: Mapping[str, History] = field(default_factory=dict)  # of stages before its last one, by title
    job: JobName | None = None  # the training of its weights, None for a file


@dataclass(frozen=True)
class Meta:
    """Facts of a recorded network beside its outputs; most are those of its `EvaluatedModel`."""

    name: str
    method: str
    seed: int | None
    arch: str
    weights_hash: str
    classifies: bool
    detailed: bool
    history: History
    layers: list[str]  # names of the layers of the layer-by-layer comparison
    widths: list[int]  # their channels
    cost: Cost | None  # None if not detailed
    made_by: str = ""  # `compute_model_fingerprint`
    trainings: list[TrainingBudget] | None = None
    earlier: dict[str, History] = field(default_factory=dict)  # measures of stages before its last one, by title


@dataclass(frozen=True)
class Context:
    """Facts that all models of a recording share."""

    run: str  # name of the run's folder
    config: dict[str, Any]  # the resolved config as JSON
    classes: list[str]
    fingerprint: str  # of the images and cues
    bfloat16: bool
    evaluated_on: dict[str, Any]  # versions and hardware, see training/run/environment.py
    trained_on: dict[str, Any] | None
    made_on: str = ""  # digest of images, normalisation, precision and device
    test: str = ""  # digest of the test images and their classes alone
    float16: bool = False  # in place of bfloat16
    repeats: Repeats = NO_REPEATS  # images that stand more than once


@dataclass(frozen=True)
class RecordedModel:
    """The outputs of one network."""

    meta: Meta
    logits: NDArray[np.float32]  # (N, C)
    penultimate: NDArray[np.float16]  # (N, D1)
    last: NDArray[np.float16]  # (N, D2)
    layers: NDArray[np.float16]  # (M, sum of the layers' widths)
    probe: NDArray[np.float16]  # (P, D2), the last tap of training images
    corrupted: NDArray[np.int32]  # (corruptions, severities, images) predicted classes, empty if not detailed
    projections: dict[str, NDArray[np.float32]]  # stage 1's linear maps by parameter name, empty for others
    train_logits: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))  # (P, C)

    @property
    def name(self) -> str:
        return self.meta.name

    def split_layers(self) -> list[NDArray[np.float16]]:
        """Return the (M, D) features of each layer."""
        return np.split(self.layers, np.cumsum(self.meta.widths)[:-1], axis=1)


ARRAYS = ("logits", "penultimate", "last", "layers", "probe", "corrupted", "train_logits")


@dataclass(frozen=True)
class Recording:
    """All networks of an evaluation on the same images."""

    context: Context
    labels: NDArray[np.int64]  # (N,)
    indices: NDArray[np.int64]  # (N,) positions in the test set
    layer_indices: NDArray[np.int64]  # (M,)
    corrupted_indices: NDArray[np.int64]
    probe_labels: NDArray[np.int64]  # (P,)
    models: list[RecordedModel]
    names: NDArray[np.str_] | None = None  # (N,) of the files of the test images, None where they lie in none
    shown: ShownImages = field(default_factory=ShownImages)  # images of the report's sheets


SHARED = ("labels", "indices", "layer_indices", "corrupted_indices", "probe_labels")
Known = Mapping[tuple[str, bool], RecordedModel]  # by fingerprint and detail


def record_models(
    subjects: Sequence[EvaluatedModel],
    data: TrainingData,
    machine: Machine,
    context: Context,
    old: Recording | None,
) -> Recording:
    """Run the subjects over the test images, or take unchanged ones from `old`."""
    num_images = len(data.test)
    shared = {
        "labels": data.test.labels.cpu().numpy(),
        "indices": np.arange(num_images),
        "layer_indices": _sample(num_images, LAYER_SAMPLE),
        "corrupted_indices": _sample(num_images, CORRUPTED_SAMPLE),
    }
    probe = _sample(len(data.train), PROBE_SAMPLE)
    is_same_data = old is not None and old.context.made_on == context.made_on
    known = {(one.meta.made_by, one.meta.detailed): one for one in old.models} if old and is_same_data else {}
    costs = _measure_costs(subjects, known, data.settings.image_size, machine)
    degraded = DegradedImages(
        data.test.load_raw(torch.from_numpy(shared["corrupted_indices"]).to(data.test.device)).cpu()
    )
    models = []
    for subject in tqdm(subjects, desc="evaluating", disable=machine.quiet or None, leave=False, unit="model"):
        found = known.get((compute_model_fingerprint(subject), subject.detailed))
        cost = costs.get(_get_cost_key(subject))
        if found is not None:
            models.append(replace(found, meta=_make_meta(subject, found.meta.layers, found.meta.widths, cost)))
        else:
            models.append(_record_one(subject, data, machine, shared, probe, degraded, cost))
    shown = copy_pixels(data.test, choose_positions(list_first_classifiers(models), shared["labels"]))
    shared["probe_labels"] = data.train.labels.cpu().numpy()[probe]
    return Recording(context, models=models, names=data.test_names, shown=shown, **shared)


def list_first_classifiers(models: Sequence[RecordedModel]) -> list[Classifier]:
    """List the models of the first seed that classify, in their order."""
    chosen = [model for model in models if model.meta.classifies and model.meta.detailed]
    return [Classifier(model.name, model.meta.method, model.logits) for model in chosen]


def _get_cost_key(subject: EvaluatedModel) -> tuple[str, ...] | None:
    """Return what cost depends on, None for a subject whose cost is not shown."""
    made_with = json.dumps(subject.made_with, sort_keys=True)
    return (subject.arch, subject.stem, made_with) if subject.detailed else None


def _measure_costs(
    subjects: Sequence[EvaluatedModel], known: Known, image_size: int, machine: Machine
) -> dict[tuple[str, ...] | None, Cost]:
    """Return one cost an architecture, measured before or now."""
    costs: dict[tuple[str, ...] | None, Cost] = {}
    new: dict[tuple[str, ...], EvaluatedModel] = {}
    for subject in subjects:
        key, found = _get_cost_key(subject), known.get((compute_model_fingerprint(subject), subject.detailed))
        if key is None:
            continue
        if found is not None and found.meta.cost is not None:
            costs.setdefault(key, found.meta.cost)
        new.setdefault(key, subject)
    missing = {key: subject for key, subject in new.items() if key not in costs}
    built = [subject.build().eval() for subject in missing.values()]
    measured = measure_costs(built, (3, image_size, image_size), machine.device, seconds=COST_SECONDS)
    return {**costs, **dict(zip(missing, measured, strict=True))}


def _sample(total: int, most: int) -> NDArray[np.int64]:
    return np.sort(torch.randperm(total, generator=make_generator(0))[:most].numpy())


def compute_model_fingerprint(subject: EvaluatedModel) -> str:
    """Return a digest of all that a network's outputs depend on."""
    taps = list(subject.taps) if subject.taps else None
    parts: list[object] = [
        subject.weights_hash,
        subject.arch,
        subject.stem,
        taps,
        sorted(subject.projections or {}),
    ]
    parts += [dict(subject.made_with)] if subject.made_with else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _make_meta(subject: EvaluatedModel, layers: list[str], widths: list[int], cost: Cost | None) -> Meta:
    known = {field.name: getattr(subject, field.name) for field in fields(Meta) if hasattr(subject, field.name)}
    known["history"] = [dict(epoch) for epoch in subject.history]
    known["earlier"] = {title: [dict(epoch) for epoch in history] for title, history in subject.earlier.items()}
    return Meta(**known, layers=layers, widths=widths, cost=cost, made_by=compute_model_fingerprint(subject))


@torch.no_grad()
def _record_one(
    subject: EvaluatedModel,
    data: TrainingData,
    machine: Machine,
    shared: Mapping[str, NDArray[Any]],
    probe: NDArray[np.int64],
    degraded: DegradedImages,
    cost: Cost | None,
) -> RecordedModel:
    model = subject.build().eval()
    structure = find_structure(model, data.settings.image_size)
    last = f"{structure.head}{INPUT}"
    taps = list(subject.taps or [structure.before_last or last, last])
    layers = structure.blocks or taps
    names = list(dict.fromkeys([*layers, *taps]))
    tapped = machine.place(TappedModel(model, names)).eval()
    penultimate_at, last_at = (names.index(tap) for tap in taps)
    logits, features = _run_network(tapped, data.test, np.arange(len(data.test)), machine)
    sample = [feature[shared["layer_indices"]] for feature in features[: len(layers)]]
    train_logits, train_features = _run_network(tapped, data.train, probe, machine)
    corrupted = np.empty((0, 0, 0), dtype=np.int32)
    if subject.detailed:
        corrupted = _predict_corrupted(model, data.test, degraded, machine)
    return RecordedModel(
        meta=_make_meta(subject, layers, [part.shape[1] for part in sample], cost),
        logits=logits,
        penultimate=features[penultimate_at],
        last=features[last_at],
        layers=np.concatenate(sample, axis=1),
        probe=train_features[last_at],
        corrupted=corrupted,
        projections={name: value.float().numpy() for name, value in (subject.projections or {}).items()},
        train_logits=train_logits,
    )


def _run_network(
    tapped: TappedModel, images: ImageTensors, indices: NDArray[np.int64], machine: Machine
) -> tuple[NDArray[np.float32], list[NDArray[np.float16]]]:
    """Return logits and pooled layers of images that are not augmented."""
    logits: list[NDArray[np.float32]] = []
    layers: list[tuple[NDArray[np.float16], ...]] = []
    for part in torch.from_numpy(indices).to(images.device).split(EVALUATION_BATCH):
        with machine.autocast():
            out = tapped(images.load_normalised(part))
        logits.append(out.logits.float().cpu().numpy())
        layers.append(tuple(_shorten(tap).cpu().numpy() for tap in out.taps))
    return np.concatenate(logits), [np.concatenate(columns) for columns in zip(*layers, strict=True)]


def _shorten(features: Tensor) -> Tensor:
    """Return features as float16, or as float32 where their range needs it."""
    halves = features.half()
    return halves if torch.isfinite(halves).all() else features.float()


def _predict_corrupted(
    model: nn.Module, images: ImageTensors, degraded: DegradedImages, machine: Machine
) -> NDArray[np.int32]:
    """Return predicted classes, (corruptions, severities, images)."""
    predicted = np.empty((len(DEGRADATIONS), len(SEVERITIES), len(degraded.clean)), dtype=np.int32)
    for row, name in enumerate(DEGRADATIONS):
        for column, severity in enumerate(SEVERITIES):
            pixels = degraded.get(name, severity).to(images.device)
            with machine.autocast():
                parts = [
                    model(normalise(part, images.mean, images.std)) for part in pixels.split(EVALUATION_BATCH)
                ]
            predicted[row, column] = torch.cat(parts).argmax(dim=1).cpu().numpy()
    return predicted
