"""Linear probes of the models of a run on another data set: run, kept in the run's eval/probe/, and read back.

Letters: N training images, M test images, D features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from dataset.images import ImageTensors
from dataset.probe_set import ProbeSet
from diagnostics.evaluation.analysis import compare_pairs
from diagnostics.evaluation.pairs import measure_accuracy
from diagnostics.evaluation.recording import EvaluatedModel
from diagnostics.evaluation.results import Probe, ProbedModel
from diagnostics.linear_probe import STRENGTHS, choose_held_out, fit_linear_classifier
from diagnostics.plain import to_plain
from diagnostics.schema import from_plain
from diagnostics.tables.table import Cell, Column, Table, to_csv
from errors import UserError, warn
from files import write_text
from models.machine import Machine
from models.taps import pool, read_head_inputs
from training.evaluation import EVALUATION_BATCH

FOLDER, NAME, SEED = "probe", "probe.json", 0
Answers = dict[str, NDArray[np.int64]]  # by model, (M,) classes


def probe_models(subjects: Sequence[EvaluatedModel], images: ProbeSet, machine: Machine) -> tuple[Probe, Answers]:
    """Train a linear classifier on the frozen features of each model.

    Raises:
        UserError: a model whose features are not finite on these images.
    """
    train_y, test_y = images.source.train.labels, images.source.test.labels
    models: list[ProbedModel] = []
    answers: Answers = {}
    for subject in tqdm(subjects, desc="probing", disable=machine.quiet or None, leave=False, unit="model"):
        model = subject.build().eval()
        train_X, test_X = (extract_features(model, part, machine) for part in (images.train, images.test))
        if not (np.isfinite(train_X).all() and np.isfinite(test_X).all()):
            raise UserError(f"--probe: {subject.name} overflows on images of {images.name}, it cannot be probed")
        fitted = fit_linear_classifier(train_X, train_y, test_X, SEED)
        answers[subject.name] = fitted.predictions
        accuracy = measure_accuracy(subject, fitted.predictions == test_y)
        size = train_X.shape[1]
        models.append(ProbedModel(accuracy, size, fitted.strength, fitted.held_out, fitted.converged))
    probe = Probe(
        data=images.name,
        digest=images.source.identity.digest,
        image_size=images.train.side,
        classes=len(images.source.classes),
        train_images=len(train_y),
        held_out_images=int(choose_held_out(train_y, SEED).sum()),
        test_images=len(test_y),
        strengths=list(STRENGTHS),
        models=models,
        pairs=compare_pairs(
            [model.accuracy for model in models], {name: found == test_y for name, found in answers.items()}
        ),
    )
    return probe, answers


@torch.no_grad()
def extract_features(model: nn.Module, images: ImageTensors, machine: Machine) -> NDArray[np.float32]:
    """Return what a network's classifier reads of images, not augmented, (N, D)."""
    parts = torch.arange(len(images), device=images.device).split(EVALUATION_BATCH)
    rows = [pool(read_head_inputs(model, images.load_normalised(part), machine)).float().cpu() for part in parts]
    return torch.cat(rows).numpy()


def write_probe(probe: Probe, answers: Answers, images: ProbeSet, folder: Path) -> Path:
    """Write probe.json and every answer to FOLDER/probe/DATA-DIGEST, and return that folder.

    Two data sets whose folders have one name are kept apart by the digest of their images.
    """
    place = folder / FOLDER / f"{probe.data}-{probe.digest[:8]}"
    place.mkdir(parents=True, exist_ok=True)
    test, classes = images.source.test, np.array(images.source.classes)
    names = test.names if test.names is not None else np.full(len(test), "")
    columns = [Column(name, name) for name in ("position", "file", "label", *answers)]
    values = [names, classes[test.labels], *(classes[found] for found in answers.values())]
    rows = [
        [Cell(n), *map(Cell, row)] for n, row in enumerate(zip(*(one.tolist() for one in values), strict=True))
    ]
    write_text(place / "predictions.csv", to_csv(Table("predictions", "", columns, rows)))
    write_text(place / NAME, json.dumps(to_plain(probe), indent=1, allow_nan=False) + "\n")
    return place


def read_probes(folder: Path, hashes: Mapping[str, str]) -> list[Probe]:
    """Read the probes of a report's folder; warn of those that are damaged or of other weights.

    hashes: digests of the weights that the report is about, by model.
    """
    found = []
    for path in sorted((folder / FOLDER).glob(f"*/{NAME}")):
        try:
            probe = from_plain(Probe, json.loads(path.read_bytes()))
        except (ValueError, RecursionError) as error:
            warn(f"{path} is left out ({error}): probe again with --probe")
            continue
        models = [model.accuracy for model in probe.models]
        changed = [model.name for model in models if hashes.get(model.name) != model.weights_hash]
        if changed:
            warn(f"{path} is left out, {changed[0]} has other weights now: probe again with --probe")
        else:
            found.append(probe)
    return found
