from __future__ import annotations

import hashlib

import numpy as np

from models.whole import find_damaged_entry, hash_file


def test_hash_is_of_all_bytes(tmp_path) -> None:
    content = bytes(range(256)) * 8192  # more than one chunk
    (tmp_path / "file").write_bytes(content)
    assert hash_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()[:16]


def test_damaged_entry_of_an_archive_is_named(tmp_path) -> None:
    path = tmp_path / "answers.npz"
    np.savez(path, labels=np.arange(100), cues=np.ones(100))
    assert find_damaged_entry(path) is None
    content = bytearray(path.read_bytes())
    content[content.index(np.ones(3).tobytes())] ^= 1
    path.write_bytes(content)
    assert find_damaged_entry(path) == "cues.npy"
    path.write_text("PK, but no archive", encoding="utf-8")
    assert find_damaged_entry(path) is None
