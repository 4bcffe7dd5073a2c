"""Images that a CSV file lists with the columns file,label,split.

`file` is relative to the CSV's folder, `label` a class, `split` train or test; without a column `split` all images
are training images, which the config's data.split divides. Other columns are ignored.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from dataset.files.class_folders import (
    IMAGE_SUFFIXES,
    ImageFile,
    ImageFiles,
    check_classes,
    check_link,
    open_entry,
)
from errors import UserError, suggest_nearest

SPLITS = ("train", "test")


def read_rows(path: Path, key: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and fields of each row of a CSV file, absent ones empty.

    Args:
        key: the config's key that names the file, for messages.
        columns: that the first line has to name.

    Raises:
        UserError: no such file, or one that is not such a CSV.
    """
    named = ",".join(columns)
    if path.exists() and not path.is_file():
        raise UserError(f"{key} {path} cannot be read: not a file, name a CSV with the columns {named}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            for name in columns:
                if name not in (reader.fieldnames or ()):
                    raise UserError(f"{path}: no column '{name}', its first line must name {named}")
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{key} {path} cannot be read: {error}") from None


def list_images(path: Path, follow_links: bool = False) -> ImageFiles:
    """Read the images of a list, each split in the order of its file names.

    Args:
        path: the config's data.root, a CSV file.
        follow_links: whether links, and paths with `..` or absolute ones, may lead out of its folder.

    Raises:
        UserError: no such CSV; a row whose file is missing, listed twice, not an image or outside, without a label
            or of another split; a class without training or test images, or one class alone.
    """
    lines: dict[Path, int] = {}
    found: dict[str, list[ImageFile]] = {name: [] for name in SPLITS}
    for line, row in read_rows(path, "data.root", ("file", "label")):
        where = f"{path}, line {line}"
        split = row.get("split", "train").strip()
        if split not in SPLITS:
            raise UserError(f"{where}: split '{split}' is neither train nor test{suggest_nearest(split, SPLITS)}")
        image = _find_image(row, where, path.parent, follow_links)
        if image.path in lines:
            raise UserError(f"{where}: {row['file']} is in line {lines[image.path]} too, keep one of them")
        lines[image.path] = line
        found[split].append(image)
    parts = (sorted(found[name], key=lambda image: image.path) for name in SPLITS)
    return check_classes(ImageFiles(path.parent, *parts), str(path))


def _find_image(row: dict[str, str], where: str, root: Path, follow_links: bool) -> ImageFile:
    label, given = row["label"].strip(), Path(row["file"])
    if not row["file"] or not label:
        raise UserError(f"{where}: no {'label' if row['file'] else 'file'}")
    if (given.is_absolute() or ".." in given.parts) and not follow_links:
        raise UserError(f"{where}: {given} leads out of {root}: copy it there, or set data.follow_links=true")
    if given.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{where}: {given} is in a format that is not read, convert it to .png")
    for part in [*reversed(given.parents), given]:  # a folder on the way may be a link, too
        check_link(root / part, None if follow_links else root)
    try:
        return open_entry(root / given, label)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {given} cannot be read ({getattr(error, 'strerror', None) or error})") from None
