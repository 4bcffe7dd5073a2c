from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import loading
from benchmarks.loading import Place
from benchmarks.timing import Timing


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in {"TEST": 20, "BATCH": 5, "REPEATS": 1}.items():
        monkeypatch.setattr(loading, name, value)
    place = Place(tmp_path, (20, 30), 16)
    place.make()
    return place


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def test_jpegs_vary_in_size_and_are_made_once(place: Place) -> None:
    files = sorted(place.root(1).rglob("*.jpg"))
    assert len(files) == 30 + 20 and len(list(place.root(1).glob("train/*"))) == loading.CLASSES
    sizes = np.array([size_of(file) for file in files])
    assert sizes.min() >= 160 and sizes.max() <= 320 and len(np.unique(sizes)) > 20
    before = files[0].stat().st_mtime_ns
    place.make()
    assert files[0].stat().st_mtime_ns == before


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12's, of torch's workers
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more than this machine's cores
@pytest.mark.parametrize("case", loading.CASES)
def test_each_case_is_measured(place: Place, case: str) -> None:
    timings = loading.run(case, place)
    assert all(timing.seconds >= timing.fastest > 0 for timing in timings)
    assert len(timings) == (3 if case == "epochs" else 1)


def test_claims_say_what_memory_and_epochs_were(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(module: str, case: str, options: list[str]) -> list[Timing]:
        assert module == "loading" and options == loading.options(place)
        if case == "epochs":
            return [
                Timing(name, seconds, seconds, 1, 0.0) for name, seconds in (("a", 6.0), ("b", 2.0), ("c", 3.0))
            ]
        added = 60.0 if case == "in memory, more" else 20.0
        return [Timing("80 MB of imports", 1.0, 1.0, 1, added)]

    monkeypatch.setattr(loading, "in_own_process", found)
    made = loading.claims(place)
    peaks = [claim for claim in made if claim.what.endswith("peak memory")]
    assert [(claim.value, claim.met) for claim in peaks] == [(1.0, True), (1.4, None)]
    rates = [(claim.value, claim.met) for claim in made if "from the file" in claim.what]
    assert rates == [(3.0, True), (2.0, True)]
    assert made[-1].value == pytest.approx(6 / (1 + 2))
