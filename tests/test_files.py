from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from files import write_atomically, write_text


def test_a_file_is_the_new_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "ä")
    write_text(path, "b")
    assert path.read_text(encoding="utf-8") == "b" and list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def half(file: BinaryIO) -> None:
        file.write(b"ne")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_atomically(path, half)
    assert path.read_text(encoding="utf-8") == "old"
