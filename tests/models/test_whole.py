from __future__ import annotations

import hashlib

import numpy as np

from models.whole import find_damaged_entry, hash_file


def test_a_hash_is_of_all_bytes(tmp_path):
    content = bytes(range(256)) * 8192  # more than one chunk
    (tmp_path / "file").write_bytes(content)
    assert hash_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()[:16]


def test_an_archive_tells_which_of_its_entries_changed(tmp_path):
    path = tmp_path / "answers.npz"
    np.savez(path, labels=np.arange(100), cues=np.ones(100))
    assert find_damaged_entry(path) is None
    content = bytearray(path.read_bytes())
    content[content.index(np.ones(3).tobytes())] ^= 1
    path.write_bytes(content)
    assert find_damaged_entry(path) == "cues.npy"
    path.write_bytes(content[:-30])
    assert find_damaged_entry(path) in ("its list of entries", None)  # without its end it is no archive at all


def test_a_file_that_is_no_archive_is_another_functions(tmp_path):
    (tmp_path / "text").write_text("PK, but not one", encoding="utf-8")
    assert find_damaged_entry(tmp_path / "text") is None
