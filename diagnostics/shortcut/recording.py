"""Record the answers of a run's networks under planted cues.

Letters: n test images, J shows an image, C classes, K cues, D features, S side in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from dataset.cues.shortcut import STREAM, draw_cues
from dataset.images import ImageTensors
from dataset.prepare import TrainingData
from dataset.views.augment import make_generator, normalise
from diagnostics.evaluation.recording import EvaluatedModel, History
from diagnostics.shortcut.cued import Array, CueContext, CuedModel, CueRecording, Decoding
from diagnostics.shortcut.held_out import HeldOutLogits, measure_held_out
from diagnostics.shortcut.probe import BATCH, PROBE_IMAGES, assign_uniform_cues, fit_balanced_probe, read_cue
from models.heads import find_classifier
from models.machine import Machine
from models.structure import find_structure
from models.taps import read_head_inputs


def draw_shown_cues(labels: Tensor, classes_cue: Tensor, count: int, most: int, seed: int) -> Tensor:
    """Draw each test image's cues, (n, J): its class's, then random others.

    Args:
        labels: (n,).
        classes_cue: (C,).
        count: K.
        most: J, at least 2 so that there is another; all K where there are fewer.
    """
    own = classes_cue.cpu()[labels.cpu()][:, None]
    order = torch.rand(len(labels), count - 1, generator=make_generator(STREAM, seed, 4)).argsort(dim=1)
    others = (own + 1 + order[:, : max(most, 2) - 1]) % count
    return torch.cat([own, others], dim=1)


@torch.no_grad()
def record_cues(
    subjects: Sequence[EvaluatedModel], data: TrainingData, machine: Machine, about: CueContext
) -> CueRecording:
    """Run every subject over the test images under cues; probe its features.

    Networks that differ in their classifier alone are run once.
    """
    shows = _CueViews(data)
    answers: dict[str, _NetworkAnswers] = {}
    models, predictions, clean = [], [], []
    logits: dict[str, HeldOutLogits | None] = {}
    for subject in subjects:
        model = subject.build().eval()
        vectors = find_structure(model, data.settings.image_size).reads_vector
        head = find_classifier(model)[1] if vectors else nn.Identity()
        key = _hash_trunk(model, head)
        if key not in answers:
            answers[key] = _NetworkAnswers(shows, model, machine, vectors)
        shown, plain = answers[key].predict(head)
        predictions.append(shown)
        clean.extend([] if plain is None else [plain])
        seen = shown[:, 0] if plain is None else plain
        right = float((seen == shows.labels).mean())
        models.append(_describe_model(subject, right, answers[key].decoding))
        logits[subject.method] = answers[key].predict_held_out(head)
    return CueRecording(
        replace(
            about,
            cue_read=read_cue(data),
            held_out_images=len(data.held_out) if data.held_out else None,
            class_counts=torch.bincount(data.train.labels.cpu(), minlength=len(data.classes)).tolist(),
        ),
        [_add_held_out(model, logits, data, about.temperature) for model in models],
        shows.labels,
        shows.classes_cue,
        shows.cues.numpy(),
        np.array(predictions, dtype=np.int16),
        np.array(clean, dtype=np.int16),
    )


def _describe_model(subject: EvaluatedModel, top1: float, decoding: Decoding | None) -> CuedModel:
    kept, before = _list_columns(subject.history), _list_columns(subject.stage1)
    return CuedModel(subject.method, subject.arch, subject.weights_hash, kept, top1, decoding, stage1=before)


def _list_columns(history: History) -> dict[str, list[float]]:
    """Return every term and measure that a training reported, one value an epoch."""
    names = dict.fromkeys(name for epoch in history for name in epoch if name != "epoch")
    return {name: [epoch[name] for epoch in history if name in epoch] for name in names}


def _add_held_out(
    model: CuedModel, logits: Mapping[str, HeldOutLogits | None], data: TrainingData, temperature: float
) -> CuedModel:
    own = logits[model.method]
    if own is None:
        return model
    return replace(model, held_out=measure_held_out(own, logits.get("teacher"), data, temperature))


class _CueViews:
    """The images that every model is shown: of the test set, and to train probes on."""

    def __init__(self, data: TrainingData) -> None:
        self.data, seed = data, data.shortcut.seed
        self.labels: Array = data.test.labels.cpu().numpy()
        self.own = data.test.cues is not None  # they have cues already, nothing is planted
        self.planted = data.shortcut.cue != "none" and not self.own
        self.classes_cue: Array = np.empty(0, np.int64)
        self.cues = torch.empty(len(self.labels), 0, dtype=torch.int64)
        self.probed = torch.zeros(len(self.labels), dtype=torch.int64)  # (n,) show that the probes are tested on
        self.learned: ImageTensors | None = None
        if data.classes_cue is None:
            return
        self.classes_cue = data.classes_cue.cpu().numpy()
        self.learned = data.balanced or (assign_uniform_cues(data) if self.planted else data.train)
        if self.own:
            assert data.test.cues is not None
            self.cues = data.test.cues.image_cues.cpu()[:, None]
            return
        settings = data.shortcut
        self.cues = draw_shown_cues(data.test.labels, data.classes_cue, data.cue_count, settings.test_cues, seed)
        draws = torch.rand(len(self.labels), generator=make_generator(STREAM, seed, 5))
        self.probed = (draws >= 1 / data.cue_count).long()  # its own, or the first other: uniform over all K

    def iter_images(self, column: int | None) -> Iterator[Tensor]:
        """Yield test images, uint8 (B, 3, S, S), under the cues of a column or none."""
        for indices in torch.arange(len(self.labels)).split(BATCH):
            pixels = self.data.test.load_raw(indices)
            if column is not None and self.planted:
                pixels = draw_cues(self.data.shortcut.cue, pixels, self.cues[indices, column], indices)
            yield pixels


class _NetworkAnswers:
    """The inputs of a network's classifier for every show, and what a probe reads there.

    vectors: the classifier reads vectors. Of other networks the logits are kept, and nothing is probed.
    """

    def __init__(self, shows: _CueViews, model: nn.Module, machine: Machine, vectors: bool) -> None:
        self.shows, self.machine = shows, machine
        self.read = partial(read_head_inputs if vectors else _compute_logits, model, machine=machine)
        test, rest = shows.data.test, range(shows.cues.shape[1])

        def read_column(column: int | None) -> Tensor:
            return torch.cat([self.read(normalise(p, test.mean, test.std)) for p in shows.iter_images(column)])

        self.columns = [read_column(column) for column in rest]  # J times (n, D)
        self.clean = None if shows.own else read_column(None)  # (n, D)
        self.decoding = self._measure_decoding() if vectors else None
        data = shows.data
        self.drawn, self.balanced = (self._read_images(part) for part in (data.held_out, data.balanced))

    def predict(self, head: nn.Module) -> tuple[Array, Array | None]:
        """Return predictions (n, J) and (n,) of a classifier."""
        columns = [self._predict_classes(head, part) for part in self.columns]
        shown = np.stack(columns, axis=1) if columns else np.empty((len(self.shows.labels), 0), np.int16)
        return shown, None if self.clean is None else self._predict_classes(head, self.clean)

    def predict_held_out(self, head: nn.Module) -> HeldOutLogits | None:
        """Return logits of a classifier on the held-out images; None without any."""
        if self.drawn is None:
            return None
        with self.machine.autocast():
            return HeldOutLogits(head(self.drawn), None if self.balanced is None else head(self.balanced))

    def _read_images(self, images: ImageTensors | None) -> Tensor | None:
        if images is None:
            return None
        return torch.cat([self.read(batch.images) for batch in images.iter_batches(BATCH)])

    def _predict_classes(self, head: nn.Module, features: Tensor) -> Array:
        with self.machine.autocast():
            predicted: Tensor = head(features).argmax(dim=1)
        return predicted.cpu().numpy().astype(np.int16)

    def _measure_decoding(self) -> Decoding | None:
        """Measure probes of cue and label on images where these are independent."""
        shows, images = self.shows, self.shows.learned
        if images is None or images.cues is None:
            return None
        chosen = torch.randperm(len(images), generator=make_generator(0))[:PROBE_IMAGES].to(images.device)
        parts = [self.read(images.load_normalised(part)) for part in chosen.split(BATCH)]
        train = torch.cat(parts).float().cpu().numpy()
        rows = torch.arange(len(shows.labels))
        test = torch.stack(self.columns)[shows.probed, rows].float().cpu().numpy()
        cues, labels = images.cues.image_cues[chosen].cpu().numpy(), images.labels[chosen].cpu().numpy()
        return Decoding(
            fit_balanced_probe(train, cues, test, shows.cues[rows, shows.probed].numpy()),
            fit_balanced_probe(train, labels, test, shows.labels),
        )


def _compute_logits(model: nn.Module, images: Tensor, machine: Machine) -> Tensor:
    with machine.autocast():
        logits: Tensor = model(images)
    return logits


def _hash_trunk(model: nn.Module, head: nn.Module) -> str:
    """Return a digest of all weights but those of the classifier."""
    own = {id(tensor) for tensor in head.state_dict(keep_vars=True).values()}
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in own:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
