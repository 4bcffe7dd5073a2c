"""Of diagnostics/evaluation/probing.py and diagnostics/tables/probes.py; main_eval.py --probe is tested in
tests/test_main_eval.py.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dataset.files.decoded_cache import Images
from dataset.images import ImageTensors
from dataset.probe_set import ProbeSet
from dataset.sources import Source
from diagnostics.comparison import compute_wilson_interval
from diagnostics.evaluation.probing import probe_models, read_probes, write_probe
from diagnostics.evaluation.recording import EvaluatedModel
from diagnostics.names import use_labels
from diagnostics.report.terminal import MOST_LINES, WIDTH, summarise_probe
from diagnostics.tables.probes import AT_EDGE, make_probe_pairs_table, make_probe_table
from errors import UserError
from models.machine import Machine

CPU = torch.device("cpu")
MACHINE = Machine(CPU, bfloat16=False, quiet=True)
PART = {"train": 60, "test": 40}


class Colours(nn.Module):
    """A network whose features are the mean of some channels, each under a classifier that knows nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.head = channels, nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = images.mean(dim=(2, 3)).clone()  # (B, 3)
        features[:, self.channels :] = 0
        logits: torch.Tensor = self.head(features)
        return logits


def draw_set(name: str = "squares", relabel: int = 0) -> ProbeSet:
    """Four classes by red and green, of which red alone tells two groups apart.

    relabel: moves the classes of the test images on by so many.
    """
    parts = []
    for part, count in PART.items():
        y = np.arange(count) % 4
        pixels = np.random.default_rng(count).integers(0, 40, (count, 3, 4, 4)).astype(np.uint8)
        pixels[:, 0] += (120 * (y & 1)).astype(np.uint8)[:, None, None]
        pixels[:, 1] += (120 * (y >> 1)).astype(np.uint8)[:, None, None]
        labels = (y + relabel) % 4 if part == "test" else y
        names = np.array([f"{part}/{number}.png" for number in range(count)])
        parts.append(Images(pixels, labels.astype(np.int64), names))
    mean, std = torch.full((3,), 0.3), torch.full((3,), 0.2)
    train, test = parts
    source = Source(train, train.take(slice(0)), test, ["a", "b", "c", "d"])
    return ProbeSet(name, source, *(ImageTensors(part, mean, std, CPU) for part in parts))


def list_models(**channels: int) -> list[EvaluatedModel]:
    """Models by name, each with the number of channels that its features have."""
    return [
        EvaluatedModel(
            name=name,
            method=name,
            seed=None if name == "teacher" else 0,
            arch="colours",
            weights_hash=f"hash of {name}",
            classifies=name != "stage1",
            detailed=True,
            taps=None,
            history=[],
            build=lambda count=count: Colours(count),
        )
        for name, count in channels.items()
    ]


@pytest.fixture(scope="module")
def probed():
    return probe_models(list_models(teacher=2, kd=1, stage1=2), draw_set(), MACHINE)


def test_features_that_separate_give_the_known_accuracy(probed) -> None:
    probe, answers = probed
    teacher, kd, stage1 = (model.accuracy for model in probe.models)
    assert (teacher.top1, stage1.top1) == (1, 1) and 0.4 <= kd.top1 <= 0.5  # red halves the classes
    assert (kd.low, kd.high) == compute_wilson_interval(round(40 * kd.top1), 40)
    assert (probe.classes, probe.train_images, probe.held_out_images, probe.test_images) == (4, 60, 12, 40)
    (pair,) = (pair for pair in probe.pairs if (pair.a, pair.b) == ("teacher", "kd"))
    assert pair.statistics.counts.b == 40 - (answers["kd"] == draw_set().source.test.labels).sum()
    assert [(pair.a, pair.b) for pair in probe.pairs] == [
        ("teacher", "kd"),
        ("teacher", "stage1"),
        ("kd", "stage1"),
    ]
    assert pair.holm_p is not None and pair.holm_p > pair.quoted_p


def test_test_labels_choose_no_strength(probed) -> None:
    probe, answers = probe_models(list_models(teacher=2, kd=1, stage1=2), draw_set(relabel=1), MACHINE)
    assert [model.accuracy.top1 for model in probe.models[::2]] == [0, 0]  # they matter for the accuracy
    for one, other in zip(probe.models, probed[0].models, strict=True):
        assert (one.strength, one.held_out) == (other.strength, other.held_out)
    assert all(np.array_equal(answers[name], probed[1][name]) for name in answers)


def test_features_that_overflow_name_the_model() -> None:
    images = draw_set()
    broken = replace(images, train=ImageTensors(images.source.train, torch.zeros(3), torch.zeros(3), CPU))
    with pytest.raises(UserError, match="--probe: kd overflows on images of squares"):
        probe_models(list_models(kd=2), broken, MACHINE)


def test_probes_are_read_back_unless_weights_changed(probed, tmp_path, capsys) -> None:
    probe, answers = probed
    place = write_probe(probe, answers, draw_set(), tmp_path)
    hashes = {model.accuracy.name: model.accuracy.weights_hash for model in probe.models}
    assert place == tmp_path / "probe" / f"squares-{probe.digest[:8]}" and read_probes(tmp_path, hashes) == [probe]
    other = replace(probe, digest="f" * 16)  # of another folder with this name
    both = [write_probe(one, answers, draw_set(), tmp_path / "both") for one in (probe, other)]
    assert both[0] != both[1] and len(read_probes(tmp_path / "both", hashes)) == 2
    rows = list(csv.DictReader((place / "predictions.csv").read_text().splitlines()))
    assert rows[1] == {"position": "1", "file": "test/1.png", "label": "b", "teacher": "b", "stage1": "b"} | {
        "kd": "abcd"[answers["kd"][1]]
    }
    assert read_probes(tmp_path, hashes | {"kd": "others"}) == []
    assert "kd has other weights now: probe again with --probe" in capsys.readouterr().err
    for damaged in ("{", json.dumps({"data": "squares"})):
        (place / "probe.json").write_text(damaged)
        assert read_probes(tmp_path, hashes) == []
        assert "probe.json is left out" in capsys.readouterr().err


def test_tables_and_summary_say_what_was_found(probed) -> None:
    probe, _ = probed
    teacher, kd, _ = make_probe_table([probe]).rows
    assert teacher[3].value is None and teacher[5].note == AT_EDGE  # any strength separates, so the strongest
    assert kd[3].value == pytest.approx(kd[2].value - 1) and kd[4].value == probe.pairs[0].holm_p
    assert len(make_probe_pairs_table([probe, probe]).rows) == 6 and make_probe_table([]).rows == []
    with use_labels({"kd": "KD of 2015"}):
        lines = summarise_probe(probe).splitlines()
    assert lines[0].startswith("Linear probe on squares: 60 training and 40 test images of 4 classes")
    assert "stage1 > KD of 2015" in lines[-1]
    many = replace(probe, models=[replace(model) for model in probe.models] * 10)
    lines = summarise_probe(many).splitlines()
    assert len(lines) == MOST_LINES - 1 and max(map(len, lines)) <= WIDTH
