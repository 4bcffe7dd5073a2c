"""Image files of class folders: one folder a class, its name the class's.

Hidden and system folders are ignored. A class or an image that would be lost is refused by name, since classes are
numbered in sorted order and one missing shifts all after it.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from errors import UserError, make_readable, warn

IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp"),
    *(".jp2", ".tga"),
}
# Pillow's names of these formats: it would open any other one whatever the suffix, PostScript by Ghostscript too
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# pictures that are not read: a class must not lose them silently
OTHER_PICTURES = {
    *(".avif", ".heic", ".heif", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".pcx", ".ico", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
}
SYSTEM_FOLDERS = {"__MACOSX", "__pycache__", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
SYNSET = re.compile(r"n\d{8}")  # names of ImageNet's classes
IMAGES, ANNOTATIONS = "images", "val_annotations.txt"  # of Tiny-ImageNet: folders of images, classes of val/images


@dataclass(frozen=True)
class ImageFile:
    """An image file with its class, size in bytes and time of change in ns."""

    path: Path
    label: str
    size: int
    changed: int


@dataclass(frozen=True)
class ImageFiles:
    """Training and test images below a folder, or all of them as training images."""

    root: Path
    train: list[ImageFile]
    test: list[ImageFile]

    @property
    def classes(self) -> list[str]:
        return sorted({image.label for image in self.train})


def find_images(root: Path, follow_links: bool = False, val_is_test: bool = False) -> ImageFiles:
    """Find class folders under root/train and root/test, or one tree of them.

    ImageNet has no labelled test/: where all classes are synsets, such as n01440764, val/ takes its place.
    Tiny-ImageNet is read as it is downloaded: train/CLASS/images, and val/images with val/val_annotations.txt.

    Args:
        root: the config's data.root.
        follow_links: whether links may lead out of it.
        val_is_test: whether val/ takes the place of a missing test/ for any classes.

    Raises:
        UserError: no such folder, train/ without test/, a class that is empty, too deep, in formats that are not
            read or without training or test images, less than two classes, a link or a file that is not accepted.
    """
    if not root.is_dir():
        raise UserError(f"data.root {root} is not a folder: name one with train/ and test/ class folders")
    outside = None if follow_links else root
    if (root / "val" / ANNOTATIONS).is_file():
        return check_classes(_find_tiny_imagenet(root, outside), str(root))
    parts = {name for name in ("train", "val", "test") if _has_folders(root / name)}
    uses_val = "test" not in parts and "val" in parts and (val_is_test or _is_imagenet(root))
    test = "val" if uses_val else "test"
    if "train" in parts and test not in parts:
        hint = "; val/ is not read as a test split here: rename it to test/ if it is one" if "val" in parts else ""
        raise UserError(f"data.root {root} has train/ but no test/ with class folders{hint}")
    if not {"train", test} <= parts:
        return check_classes(ImageFiles(root, _list_classes(root, outside), []), str(root))
    for name in ("train", test):
        check_link(root / name, outside)
    found = [_list_classes(root / name, outside) for name in ("train", test)]
    return check_classes(ImageFiles(root, *found), str(root))


def check_classes(found: ImageFiles, where: str) -> ImageFiles:
    """Return the images, with a warning of classes whose names differ in case or spaces alone.

    Raises:
        UserError: one class, two spellings of the same name, or a part without a class.
    """
    _compare_names(sorted({image.label for image in found.train + found.test}), where)
    tested = {image.label for image in found.test}
    for name in sorted(tested.symmetric_difference(found.classes)) if tested else ():
        raise UserError(f"{where}: class {name} has no {'training' if name in tested else 'test'} images")
    if len(found.classes) < 2:
        raise UserError(f"{where}: {len(found.classes)} class of training images, at least two are needed")
    return found


def _compare_names(names: list[str], where: str) -> None:
    same: dict[str, str] = {}
    alike: dict[str, str] = {}
    for name in names:
        other = same.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise UserError(
                f"{where}: classes {ascii(other)} and {ascii(name)} are two Unicode spellings of one name "
                f"({name}): give both the same"
            )
        other = alike.setdefault("".join(unicodedata.normalize("NFKC", name).casefold().split()), name)
        if other != name:
            warn(
                f"{where}: classes {ascii(other)} and {ascii(name)} differ in case or spaces alone: are they one?"
            )


def check_link(path: Path, root: Path | None) -> None:
    """Raise `UserError` for a link to nothing, or out of `root` unless that is None."""
    if not path.is_symlink():
        return
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError of links that loop
        raise UserError(f"{path}: a link to nothing or to itself, remove or repair it") from None
    if root is not None and not target.is_relative_to(root.resolve()):
        raise UserError(
            f"{path}: a link out of data.root, to {target}: copy the target into it, or set data.follow_links=true"
        )


def open_entry(path: Path, label: str) -> ImageFile:
    """Return the image file at `path`; raise `UserError` for a device or a pipe."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise UserError(f"{path}: not a file with an image, remove it")
    return ImageFile(path, label, state.st_size, state.st_mtime_ns)


def _is_ignored(name: str) -> bool:
    """Return whether a name is hidden, a NAS's @eaDir, a ._ file or a recycle bin."""
    return name.startswith((".", "@")) or name in SYSTEM_FOLDERS


def _list_entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not _is_ignored(path.name))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}): repair it or move it out of data.root"
        ) from None


def _has_folders(folder: Path) -> bool:
    """Return whether a folder has folders: root/train may be a class of that name."""
    return folder.is_dir() and any(path.is_dir() for path in _list_entries(folder))


def _is_imagenet(root: Path) -> bool:
    """Return whether all folders of train/ and val/ are named as synsets."""
    folders = [root / "train", root / "val"]
    found = [path for folder in folders if folder.is_dir() for path in _list_entries(folder) if path.is_dir()]
    return folders[0].is_dir() and all(SYNSET.fullmatch(path.name) for path in found)


def _find_tiny_imagenet(root: Path, outside: Path | None) -> ImageFiles:
    """Find the images of Tiny-ImageNet's train/ and val/; its test/ has no labels."""
    for name in ("train", "val"):
        check_link(root / name, outside)
    train = _list_classes(root / "train", outside, inner=IMAGES)
    labels = _read_annotations(root / "val" / ANNOTATIONS)
    images = _list_class(root / "val" / IMAGES, "", outside)
    for name in sorted(labels.keys() ^ {image.path.name for image in images}):
        missing = f"not in {root / 'val' / IMAGES}" if name in labels else "without a class"
        raise UserError(f"{root / 'val' / ANNOTATIONS}: {make_readable(name)} is {missing}, add it or remove it")
    return ImageFiles(root, train, [replace(image, label=labels[image.path.name]) for image in images])


def _read_annotations(path: Path) -> dict[str, str]:
    """Read the class of each image: lines of name, class and a box, apart by tabs."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): repair it") from None
    labels: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, label, *_ = [*line.split("\t"), ""]
        if not name or not label.strip() or name in labels:
            problem = "is there twice" if name in labels else "needs a name, a tab and a class"
            raise UserError(f"{path}, line {number}: {make_readable(name)} {problem}")
        labels[name] = make_readable(label.strip())
    return labels


def _list_classes(folder: Path, outside: Path | None, inner: str = "") -> list[ImageFile]:
    """List the images of class folders, or of the folder `inner` in each that has one."""
    found: list[ImageFile] = []
    for path in _list_entries(folder):
        check_link(path, outside)
        if path.is_dir():
            below = path / inner if (path / inner).is_dir() else path
            found += _list_class(below, make_readable(path.name), outside)
    if not found:
        raise UserError(f"{folder}: no class folder with images ({', '.join(sorted(IMAGE_SUFFIXES))}) in it")
    return found


def _list_class(folder: Path, label: str, outside: Path | None) -> list[ImageFile]:
    check_link(folder, outside)
    found = []
    for path in _list_entries(folder):
        suffix = path.suffix.lower()
        check_link(path, outside)
        if path.is_dir():
            _refuse_images_below(path, folder)
        elif suffix in OTHER_PICTURES:
            raise UserError(f"{path}: {suffix} is not read, convert it to .png or remove it from the class")
        elif suffix in IMAGE_SUFFIXES:
            found.append(open_entry(path, label))
    if not found:
        raise UserError(f"{folder}: a class without images, remove the folder or put images into it")
    return found


def _refuse_images_below(folder: Path, class_folder: Path) -> None:
    for below, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_ignored(name)]
        if any(Path(name).suffix.lower() in IMAGE_SUFFIXES | OTHER_PICTURES for name in names):
            raise UserError(f"{below}: images one folder too deep, move them up into {class_folder}")
