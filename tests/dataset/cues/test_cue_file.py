from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.prepare import prepare
from dataset.sources import load_source
from errors import UserError
from settings.images import Data, Shortcut


class CueFile:
    """Class folders with a CSV of cues: land where a number is even, else water."""

    def __init__(self, folder):
        self.root, self.path = folder / "images", folder / "cues.csv"
        for part, count in (("train", 6), ("test", 2)):
            for name in ("ant", "zebra"):
                (self.root / part / name).mkdir(parents=True)
                for number in range(count):
                    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(self.root / part / name / f"{number}.png")
        names = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*.png"))
        self.rows = {name: "water" if int(name[-5]) % 2 else "land" for name in names}

    def load(self, **options):
        cache = self.root.parent / "cache"
        return load_source(Data(source="folder", root=self.root, image_size=8, cache_dir=cache, **options))

    def prepare(self, header="file,cue", source=None, more="", **options):
        lines = [header, *(f"{name},{cue}" for name, cue in self.rows.items()), more]
        self.path.write_text("\n".join(lines), encoding="utf-8")
        shortcut = Shortcut(cue="file", **({"file": self.path} | options))
        source = load_source(Data()) if source == "digits" else source or self.load()
        return prepare(source, Data(), torch.device("cpu"), shortcut)


@pytest.fixture
def cue_file(tmp_path):
    return CueFile(tmp_path)


def test_cues_are_numbered_in_sorted_order(cue_file) -> None:
    cue_file.rows["train/ant/0.png"] = "water"
    data, plain = cue_file.prepare(), prepare(cue_file.load(), Data(), torch.device("cpu"))
    assert data.train.cues.image_cues.tolist() == [1, 1, 0, 1, 0, 1] + [0, 1] * 3
    assert data.test.cues.image_cues.tolist() == [0, 1] * 2
    assert (data.classes_cue.tolist(), data.cue_count) == ([1, 0], 2)  # of two as frequent the first
    assert torch.equal(data.train.load_normalised(torch.arange(12)), plain.train.load_normalised(torch.arange(12)))
    assert data.select_teacher_data() is data
    cue_file.rows["train/ant/0.png"] = "land"
    assert cue_file.prepare().fingerprint not in (data.fingerprint, plain.fingerprint)


def test_balanced_images_are_even_over_classes_and_cues(cue_file) -> None:
    data = cue_file.prepare(source=cue_file.load(split=0.9, val_fraction=0.5))
    held_out, chosen = (
        (images.labels * 2 + images.cues.image_cues).bincount(minlength=4) for images in (data.val, data.balanced)
    )
    smallest = held_out[held_out > 0].min()
    assert held_out.max() > smallest
    assert torch.equal(chosen, torch.where(held_out > 0, smallest, 0))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({}, {"header": "file,label"}, "no column 'cue'"),
        ({}, {"source": "digits"}, "data.source: folder"),
        ({}, {"teacher": "unbiased"}, "only be biased"),
        ({}, {"file": "."}, "cannot be read"),
        ({"test/ant/1.png": "lava"}, {}, "no training image has the cue 'lava'"),
        ({"test/ant/1.png": ""}, {}, "no cue for test/ant/1.png"),
        (None, {}, "at least two"),
        ({}, {"more": "train/ant/0.png,water"}, "0.png has the cue 'land' in one row and 'water' in another"),
    ],
)
def test_mistakes_in_a_cue_file_are_named(cue_file, rows, options, message) -> None:
    cue_file.rows = dict.fromkeys(cue_file.rows, "land") if rows is None else cue_file.rows | rows
    with pytest.raises(UserError, match=message):
        cue_file.prepare(**options)


def test_a_repeated_row_is_accepted(cue_file) -> None:
    assert cue_file.prepare(more="train/ant/0.png,land").fingerprint == cue_file.prepare().fingerprint
