from __future__ import annotations

import numpy as np
import pytest

from diagnostics.evaluation.archive import open_arrays


def test_an_archive_that_expands_too_much_is_refused_unread(tmp_path, monkeypatch) -> None:
    path = tmp_path / "predictions.npz"
    np.savez_compressed(path, a=np.zeros(120_000_000, np.uint8))
    monkeypatch.setattr(
        "diagnostics.evaluation.archive.find_damaged_entry", lambda path: pytest.fail("it was read")
    )
    with pytest.raises(ValueError, match=r"bytes would expand to 120,000,"), open_arrays(path):
        pass


def test_arrays_are_read(tmp_path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(5))
    with open_arrays(tmp_path / "a.npz") as arrays:
        assert arrays["a"].tolist() == [0, 1, 2, 3, 4]
