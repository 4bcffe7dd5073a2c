"""Of diagnostics/shortcut/: recording.py, cued.py, cue_recording_file.py."""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dataset.cues.shortcut import Cues
from dataset.files.decoded_cache import Images
from dataset.files.stored_pixels import StoredPixels
from dataset.prepare import prepare
from dataset.sources import Source
from diagnostics.evaluation.recording import EvaluatedModel
from diagnostics.shortcut.cue_recording_file import is_up_to_date, read_cue_recording, write_cue_recording
from diagnostics.shortcut.cued import CueContext
from diagnostics.shortcut.measures import measure_shortcut
from diagnostics.shortcut.probe import read_cue
from diagnostics.shortcut.recording import draw_shown_cues, record_cues
from errors import UserError
from losses.kl import compute_softened_kl
from models.machine import Machine
from settings.images import Data, Shortcut

ABOUT = CueContext({}, 0, {})
CPU = Machine(torch.device("cpu"), bfloat16=False, quiet=True)
CLASSES = 6


class ByColour(nn.Module):
    """Features are the mean colour of the top left patch, normalised; the head makes it a class."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.scale = nn.Parameter(torch.ones(3))
        self.fc = nn.Linear(3, CLASSES)
        self.runs = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.fc(images[:, :, :2, :2].mean(dim=(2, 3)) * self.scale)


def make_data(cue="patch", val=60, **changes):
    rng = np.random.default_rng(0)

    def draw_images(count):
        labels = np.arange(count) % CLASSES
        return Images(rng.integers(0, 255, (count, 3, 16, 16), dtype=np.uint8), labels.astype(np.int64))

    source = Source(draw_images(240), draw_images(val), draw_images(90), list("abcdef"))
    settings = Data(image_size=16, crop=2, flip=True, val_fraction=0.2)
    return prepare(source, settings, CPU.device, Shortcut(cue=cue, **changes))


def make_subject(method, model):
    history = [{"epoch": 1, "kl": 2.0, "cosine_a": 0.5, "top1": 0.5}, {"epoch": 2, "kl": 1.0, "top1": 0.6}]
    aligned = [{"epoch": 1, "mine_stage2": 3.0, "cosine_stage2": 0.7}]
    known = {"name": method, "method": method, "seed": 0, "arch": "colour", "weights_hash": f"hash of {method}"}
    looked_at = {"classifies": True, "detailed": True, "taps": None, "history": history, "stage1": aligned}
    return EvaluatedModel(**known, **looked_at, build=lambda: model)


@pytest.fixture(scope="module")
def recorded():
    data, first, second = make_data(), ByColour(0), ByColour(1)
    models = [make_subject("teacher", first), make_subject("two_stage", second)]
    return data, (first, second), record_cues(models, data, CPU, CueContext({}, 3, {}))


def test_images_are_shown_under_different_cues() -> None:
    labels, own = torch.arange(2000) % 8, torch.tensor([3, 1, 0, 2, 4, 5, 6, 7])
    every = draw_shown_cues(labels, own, 8, most=10, seed=1)
    assert every.shape == (2000, 8) and (every[:, 0] == own[labels]).all()
    assert (every.sort(dim=1).values == torch.arange(8)).all()
    some = draw_shown_cues(labels, own, 8, most=3, seed=1)
    assert torch.equal(some, every[:, :3]) and not torch.equal(some, draw_shown_cues(labels, own, 8, 3, seed=2))
    counts = Counter(some[labels == 0][:, 1].tolist())
    assert own[0].item() not in counts and min(counts.values()) > 15  # 250 / 7 are expected of each
    assert draw_shown_cues(labels, own, 8, most=1, seed=1).shape == (2000, 2)


def test_predictions_are_of_stamped_images(recorded) -> None:
    data, (first, second), recording = recorded
    assert recording.predictions.shape == (2, 90, 6) and recording.clean.shape == (2, 90)
    for number, model in enumerate((first, second)):
        with torch.no_grad():
            plain = model(data.test.load_normalised(torch.arange(90))).argmax(dim=1).numpy()
        assert (recording.clean[number] == plain).all()
        assert recording.models[number].test_top1 == pytest.approx((plain == recording.labels).mean())
        # the features are the cue, so a prediction depends on the shown cue alone
        for cue in range(6):
            assert len(set(recording.predictions[number][recording.cues == cue])) == 1
    assert [model.method for model in recording.models] == ["teacher", "two_stage"]
    assert recording.models[1].history == {
        "kl": [2.0, 1.0],
        "cosine_a": [0.5],
        "top1": [0.5, 0.6],
    }  # all but epoch
    assert recording.models[1].stage1 == {"mine_stage2": [3.0], "cosine_stage2": [0.7]}
    found = measure_shortcut(recording.get_shown(1), recording.get_shown(0))
    assert found.shows == 6 and found.clean == recording.models[1].test_top1


def test_images_that_stay_in_files_are_recorded_alike(recorded, tmp_path) -> None:
    data, _, recording = recorded
    np.save(tmp_path / "test.npy", data.test.pixels.numpy())
    stored = copy(data.test)
    stored.pixels = StoredPixels.open(tmp_path / "test.npy")
    models = [make_subject("teacher", ByColour(0)), make_subject("two_stage", ByColour(1))]
    again = record_cues(models, replace(data, test=stored), CPU, CueContext({}, 3, {}))
    for name in ("predictions", "clean", "cues", "labels"):
        assert np.array_equal(getattr(again, name), getattr(recording, name))
    assert again.models[0].decoding == recording.models[0].decoding


def test_networks_with_equal_features_run_once() -> None:
    first, second, other = ByColour(0), ByColour(1), ByColour(2)
    with torch.no_grad():
        other.scale.mul_(2)
    record_cues(
        [make_subject(name, m) for name, m in zip("abc", (first, second, other), strict=True)],
        make_data(),
        CPU,
        ABOUT,
    )
    assert first.runs == other.runs > 5
    assert second.runs == 1  # one image, to see what its classifier reads


def test_probes_read_the_cue_and_not_the_label(recorded) -> None:
    assert recorded[2].models[0].decoding.cue_decoding > 0.95
    assert recorded[2].models[0].decoding.label_decoding < 0.35
    without = record_cues([make_subject("teacher", ByColour(0))], make_data(val=0), CPU, ABOUT)
    assert without.models[0].decoding.cue_decoding > 0.95 and without.models[0].decoding.label_decoding < 0.35


@pytest.mark.parametrize("cue", ["patch", "background", "tint", "frame"])
def test_a_probe_reads_the_cue_after_augmentation(cue) -> None:
    assert read_cue(make_data(cue)) > 0.9


def test_own_cues_are_shown_once(recorded) -> None:
    data = recorded[0]
    plain = record_cues([make_subject("teacher", ByColour(0))], make_data("none"), CPU, ABOUT)
    assert plain.get_shown(0) is None and plain.about.cue_read is None
    assert plain.models[0].test_top1 == recorded[2].models[0].test_top1
    own = SimpleNamespace(**vars(data))  # test images with cues that they brought
    own.shortcut = Shortcut(cue="file", file="cues.csv")
    own.test = data.test.with_cues(Cues("file", data.classes_cue, 6, torch.arange(90) % 5))
    shown = record_cues([make_subject("teacher", ByColour(0))], own, CPU, ABOUT).get_shown(0)
    assert shown.shows.cues.shape == (90, 1) and shown.clean is None and measure_shortcut(shown).clean is None


def test_held_out_numbers_equal_direct_ones(recorded) -> None:
    data, (first, second), recording = recorded
    with torch.no_grad():
        drawn = [model(data.held_out.load_normalised(torch.arange(60))) for model in (first, second)]
        balanced = second(data.balanced.load_normalised(torch.arange(60))).argmax(dim=1)
    teacher, student = (model.held_out for model in recording.models)
    labels = data.held_out.labels
    expected = float(compute_softened_kl(drawn[1], drawn[0], 4.0))
    assert teacher.held_out_kl == 0 and student.held_out_kl == pytest.approx(expected, rel=1e-4)
    assert student.held_out_top1 == pytest.approx((drawn[1].argmax(dim=1) == labels).double().mean())
    cells = (labels * CLASSES + data.balanced.cues.image_cues).tolist()
    right = (balanced == labels).tolist()
    by_cell = [[hit for hit, own in zip(right, cells, strict=True) if own == cell] for cell in set(cells)]
    assert student.held_out_unbiased == pytest.approx(np.mean([np.mean(hits) for hits in by_cell]))
    none = record_cues([make_subject("teacher", ByColour(0))], make_data(val=0), CPU, ABOUT).models[0]
    plain = record_cues([make_subject("kd", ByColour(0))], make_data("none"), CPU, ABOUT).models[0].held_out
    assert none.held_out is None and (plain.held_out_kl, plain.held_out_unbiased) == (None, None)


def test_what_is_written_is_read(recorded, tmp_path) -> None:
    recording = recorded[2]
    hashes = {"teacher": "hash of teacher", "two_stage": "hash of two_stage"}
    assert not is_up_to_date(tmp_path, hashes)
    write_cue_recording(recording, tmp_path)
    assert is_up_to_date(tmp_path, hashes) and not is_up_to_date(tmp_path, {**hashes, "kd": "hash of kd"})
    assert not is_up_to_date(tmp_path, {**hashes, "two_stage": "another"})
    assert {path.name for path in tmp_path.iterdir()} == {"cues.npz", "cues.json"}
    again = read_cue_recording(tmp_path)
    assert (again.about, again.models) == (recording.about, recording.models)
    for name in ("labels", "classes_cue", "cues", "predictions", "clean"):
        assert np.array_equal(getattr(again, name), getattr(recording, name))
    assert again.predictions.dtype == np.int16 and again.about.seed == 3


@pytest.mark.parametrize("name", ["cues.npz", "cues.json"])
def test_a_damaged_recording_is_named(recorded, tmp_path, name) -> None:
    write_cue_recording(recorded[2], tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"cues\.(json|npz) .*--phase study makes it again"):
        read_cue_recording(tmp_path)
    assert not is_up_to_date(tmp_path, {"teacher": "hash of teacher", "two_stage": "hash of two_stage"})
