"""Sections on images: source, augmentation, and planted cues."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from settings.section import (
    Count,
    Deviations,
    FilePath,
    Fraction,
    Means,
    Number,
    Positive,
    Section,
    Seed,
    Share,
    option,
)

Transform = Annotated[
    dict[str, dict[str, Any]],
    Field(min_length=1, max_length=1),
    BeforeValidator(lambda given: {given: {}} if isinstance(given, str) else given),
]  # a name with its options, or a name alone
Source = Literal["digits", "cifar10", "cifar100", "stl10", "folder", "csv"]
Cue = Literal["none", "background", "tint", "patch", "frame", "corruption", "gray", "file"]
STRENGTHS = {"none": 0.0, "mixup": 0.2, "cutmix": 1.0, "erasing": 0.1}


class Data(Section):
    source: Source = option("digits", "folder = class folders under root, csv = root lists file,label,split")
    root: FilePath | None = option(
        None, "folder or list of the images, or of torchvision's downloads (default: data)"
    )
    follow_links: bool = option(False, "follow links in root that lead out of it")
    image_size: Count = option(32, "side in pixels; images of another size are resized")
    resize: Literal["squash", "crop"] = option("squash", "to a square; crop: short side first, then the centre")
    split: Share | None = option(None, "pool all images and train on this fraction, stratified (the paper: 0.7)")
    bit_depth: Literal[8, 10, 12, 14, 16] | None = option(
        None, "bits in use of grey images stored with 16 (default: the fewest that hold the brightest value)"
    )
    in_memory: StrictBool | Literal["auto"] = option(
        "auto",
        "keep decoded pixels in memory; false = read each batch from a file in cache_dir; auto = if they fit",
    )
    workers: Number = option(0, "processes that read and augment training images ahead, 0 = between steps")
    imbalance: Annotated[float, Field(ge=1)] = option(
        1.0, "thin out training images to a long tail: times as many of the most frequent class as of the rarest"
    )
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = option(0.0, "part of the training images held out")
    crop: Number = option(4, "padding in pixels of the random crop, 0 = no crop")
    flip: bool = option(True, "random horizontal flip; wrong where a mirror image changes the class")
    augment: list[Transform] = option(
        [], "torchvision transforms after crop and flip, such as [{RandAugment: {magnitude: 7}}, RandomErasing]"
    )
    mix: Literal["none", "mixup", "cutmix", "erasing"] = option(
        "none", "for students: mix two images and their labels, paste a box of one into another, or erase a square"
    )
    mix_strength: Positive | None = option(
        None, "a of Beta(a, a) (default: mixup 0.2, cutmix 1); erasing: share of the area (default: 0.1)"
    )
    mean: Means | None = option(None, "channel means in 0..1 to normalise with (default: of the training images)")
    std: Deviations | None = option(None, "channel deviations in 0..1 (default: of the training images)")
    seed: Seed = option(0, "seed of the split and of the augmented views, shared by all training seeds")
    cache_dir: FilePath = option(Path("data/cache"), "folder of decoded images and cached teacher outputs")

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.crop >= self.image_size:
            raise ValueError(
                f"crop {self.crop} is a padding and must be smaller than image_size {self.image_size}"
            )
        if self.resize == "crop" and self.source not in ("folder", "csv"):
            raise ValueError(f"resize: crop is for source: folder and csv, images of {self.source} are square")
        if self.in_memory is False and self.source == "digits":
            raise ValueError("in_memory: false is for images in files, the digits come from memory")
        if self.mix == "erasing" and self.strength >= 1:
            raise ValueError(f"mix_strength {self.strength:g} is a share of the area with mix: erasing: below 1")
        return self

    @property
    def folder(self) -> Path:
        """The folder that names of image files are relative to."""
        root = self.root or Path("data")
        return root.parent if self.source == "csv" else root

    @property
    def strength(self) -> float:
        """`mix_strength`, or the default of the mix."""
        return self.mix_strength or STRENGTHS[self.mix]


class Shortcut(Section):
    cue: Cue = option("none", "what is planted as a shortcut to the class; file = cues are labelled in `file`")
    conflicting: Fraction | Literal["uniform"] = option(
        0.05, "share of training images with the cue of another class; uniform = cues regardless of class"
    )
    teacher: Literal["biased", "unbiased"] = option(
        "biased", "cues of the teacher's training images: as `conflicting` says, or uniform"
    )
    students: Literal["biased", "unbiased"] = option("biased", "cues of the students' training images, likewise")
    seed: Seed = option(0, "seed of the map from classes to cues and of each image's cue")
    file: FilePath | None = option(None, "CSV with the columns file,cue: cues that a folder's images have already")
    pairs: Literal["same", "counterfactual"] = option(
        "same", "the teacher sees the student's image, or the same image under another cue, drawn for each view"
    )
    test_cues: Count = option(10, "cues that each test image is shown under, a fixed sample where there are more")

    @model_validator(mode="after")
    def _check(self) -> Shortcut:
        if (self.cue == "file") != (self.file is not None):
            raise ValueError("cue: file and a file with cue labels go together")
        if self.pairs == "counterfactual" and self.cue in ("none", "file"):
            raise ValueError(f"pairs: counterfactual needs a planted cue, with cue: {self.cue} none can change")
        return self
