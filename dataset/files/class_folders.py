"""Which files of a folder are images, and of which class: one folder a class, its name the class's.

What a desktop or a notebook leaves behind is passed over; what looks like a class or an image but would be lost is
refused by name, since classes are numbered in sorted order and one missing shifts all after it.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from errors import UserError, readable

IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp"),
    *(".jp2", ".tga"),
}
# pictures that are not read: a class must not lose them without a word
OTHER_PICTURES = {
    *(".avif", ".heic", ".heif", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".pcx", ".ico", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
}
LEFT_BEHIND = {"__MACOSX", "__pycache__", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
SYNSET = re.compile(r"n\d{8}")  # what ImageNet calls a class


@dataclass(frozen=True)
class ImageFile:
    """An image, its size in bytes and time of change in nanoseconds; its class is its folder's unless given."""

    path: Path
    size: int
    changed: int
    given: str | None = None

    @property
    def label(self) -> str:
        return readable(self.path.parent.name) if self.given is None else self.given


@dataclass(frozen=True)
class ClassFolders:
    """The images of a root: training and test, or all of one tree as training images."""

    root: Path
    train: list[ImageFile]
    test: list[ImageFile]

    @property
    def classes(self) -> list[str]:
        return sorted({image.label for image in self.train})


@dataclass(frozen=True)
class Links:
    """Which links are taken: those that stay in a root, or all that lead to something."""

    root: Path
    followed: bool = False

    def check(self, path: Path) -> None:
        """Raise `UserError` for a link that leads to nothing, to itself, or out of the root."""
        if not path.is_symlink():
            return
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError of links that loop
            raise UserError(f"{path}: a link to nothing or to itself, remove or mend it") from None
        if not self.followed and not target.is_relative_to(self.root.resolve()):
            raise UserError(
                f"{path}: a link out of data.root, to {target}: copy what is there, or say data.follow_links=true"
            )


def find_images(root: Path, follow_links: bool = False) -> ClassFolders:
    """Class folders under root/train and root/test, or one tree of class folders under root, in sorted order.

    ImageNet has no labelled test/: where all classes are synsets, such as n01440764, val/ stands for it.

    Args:
        root: the config's data.root.
        follow_links: whether links may lead out of it.

    Raises:
        UserError: no such folder, train/ without test/, a class that is empty, too deep, in formats that are not
            read or without training or test images, less than two classes, a link or a file that is not taken.
    """
    if not root.is_dir():
        raise UserError(f"data.root {root} is no folder: give one with train/ and test/ class folders")
    links = Links(root, follow_links)
    parts = {name for name in ("train", "val", "test") if _holds_classes(root / name)}
    test = "val" if "test" not in parts and "val" in parts and _is_imagenet(root) else "test"
    if "train" in parts and test not in parts:
        instead = "; val/ is no test split here: rename it to test/ if it is to be one" if "val" in parts else ""
        raise UserError(f"data.root {root} has train/ but no test/ with class folders{instead}")
    if not {"train", test} <= parts:
        return _with_classes(ClassFolders(root, _list_images(root, links), []))
    for name in ("train", test):
        links.check(root / name)
    found = ClassFolders(root, _list_images(root / "train", links), _list_images(root / test, links))
    strange = sorted({image.label for image in found.test} - set(found.classes))
    if strange:
        raise UserError(f"{root / test / strange[0]}: a class without training images in {root / 'train'}")
    missing = sorted(set(found.classes) - {image.label for image in found.test})
    if missing:
        raise UserError(f"{root / 'train' / missing[0]}: a class without test images, put some into {root / test}")
    return _with_classes(found)


def _with_classes(found: ClassFolders) -> ClassFolders:
    if len(found.classes) < 2:
        raise UserError(
            f"data.root {found.root}: one class, {found.classes[0]}, is nothing to tell from: give two"
        )
    return found


def _is_left_behind(name: str) -> bool:
    """Hidden files and folders, a NAS's @eaDir, a Mac's __MACOSX and ._ files, bins."""
    return name.startswith((".", "@")) or name in LEFT_BEHIND


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not _is_left_behind(entry.name)]
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}): mend it or take it out of data.root"
        ) from None
    return sorted(kept, key=lambda entry: entry.name)


def _holds_classes(folder: Path) -> bool:
    """Whether a folder has folders in it: root/train may be a class of that name as well."""
    return folder.is_dir() and any(os.path.isdir(entry.path) for entry in _entries(folder))


def _is_imagenet(root: Path) -> bool:
    """Whether every folder of train/ and val/ is named as a synset; false where there is no train/."""
    folders = [root / "train", root / "val"]
    names = [entry.name for folder in folders if folder.is_dir() for entry in _entries(folder) if entry.is_dir()]
    return folders[0].is_dir() and all(SYNSET.fullmatch(name) for name in names)


def _list_images(folder: Path, links: Links) -> list[ImageFile]:
    found: list[ImageFile] = []
    for entry in _entries(folder):
        links.check(Path(entry.path))
        if entry.is_dir():
            found += _images_of_class(Path(entry.path), links)
    if not found:
        raise UserError(f"{folder}: no class folder with images ({', '.join(sorted(IMAGE_SUFFIXES))}) in it")
    return found


def _images_of_class(folder: Path, links: Links) -> list[ImageFile]:
    found = []
    for entry in _entries(folder):
        suffix = Path(entry.name).suffix.lower()
        links.check(Path(entry.path))
        if entry.is_dir():
            _refuse_images_below(Path(entry.path), folder)
        elif suffix in OTHER_PICTURES:
            raise UserError(f"{entry.path}: {suffix} is not read, convert it to .png or take it out of the class")
        elif suffix in IMAGE_SUFFIXES:
            state = entry.stat()
            if not stat.S_ISREG(state.st_mode):
                raise UserError(f"{entry.path}: a device or a pipe, not an image: take it out of the class")
            found.append(ImageFile(Path(entry.path), state.st_size, state.st_mtime_ns))
    if not found:
        raise UserError(f"{folder}: a class without images, remove the folder or put images into it")
    return found


def _refuse_images_below(folder: Path, of_class: Path) -> None:
    for below, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_left_behind(name)]
        if any(Path(name).suffix.lower() in IMAGE_SUFFIXES | OTHER_PICTURES for name in names):
            raise UserError(f"{below}: images one folder too deep, move them up into {of_class}")
