"""Images that a CSV file lists with the columns file,label,split: where they lie and of which class they are.

`file` is relative to the CSV's folder, `label` a class, `split` train or test; without a column `split`
all images are of training, which the config's data.split divides. Other columns count for nothing.
"""

from __future__ import annotations

import stat
from pathlib import Path

from dataset.files.class_folders import IMAGE_SUFFIXES, ClassFolders, ImageFile, Links
from dataset.files.csv_rows import csv_rows
from errors import UserError, nearest

SPLITS = ("train", "test")


def listed_images(path: Path, follow_links: bool = False) -> ClassFolders:
    """The images of a list, each split in the order of its file names.

    Args:
        path: the config's data.root, a CSV file.
        follow_links: whether links, and paths with `..` or from the root on, may lead out of its folder.

    Raises:
        UserError: no such CSV; a row whose file is not there, stands twice, is no image or lies outside, without a
            label or of another split; a class without training or test images, or one class alone.
    """
    links, seen = Links(path.parent, follow_links), dict[Path, int]()
    found: dict[str, list[ImageFile]] = {name: [] for name in SPLITS}
    for line, row in csv_rows(path, "data.root", ("file", "label")):
        where = f"{path}, line {line}"
        split = row.get("split", "train").strip()
        if split not in SPLITS:
            raise UserError(f"{where}: split '{split}' is none of train, test{nearest(split, SPLITS)}")
        image = _image(row, where, links)
        if image.path in seen:
            raise UserError(f"{where}: {row['file']} stands in line {seen[image.path]} too, keep one of them")
        seen[image.path] = line
        found[split].append(image)
    parts = (sorted(found[name], key=lambda image: image.path) for name in SPLITS)
    return _checked(ClassFolders(path.parent, *parts), path)


def _image(row: dict[str, str], where: str, links: Links) -> ImageFile:
    label, given = row["label"].strip(), Path(row["file"])
    if not row["file"] or not label:
        raise UserError(f"{where}: no {'label' if row['file'] else 'file'}")
    if (given.is_absolute() or ".." in given.parts) and not links.followed:
        raise UserError(
            f"{where}: {given} leads out of {links.root}: copy it there, or say data.follow_links=true"
        )
    image = links.root / given
    if image.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{where}: {given} is in a format that is not read, convert it to .png")
    links.check(image)
    try:
        state = image.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {given} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(state.st_mode):
        raise UserError(f"{where}: {given} is no file with an image")
    return ImageFile(image, state.st_size, state.st_mtime_ns, label)


def _checked(found: ClassFolders, path: Path) -> ClassFolders:
    if len(found.classes) < 2:
        raise UserError(f"{path}: {len(found.classes)} class of training images is nothing to tell from: list two")
    of_test = {image.label for image in found.test}
    for name in sorted(of_test.symmetric_difference(found.classes)) if found.test else ():
        lacking = "training" if name in of_test else "test"
        raise UserError(f"{path}: class {name} has no {lacking} images")
    return found
