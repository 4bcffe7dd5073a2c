"""One flipped bit in each kind of file; flips.py does 200."""

from __future__ import annotations

from tests.faults.flips import try_all


def test_a_flipped_bit_is_found_or_harmless_in_every_kind_of_file(tmp_path):
    counts = try_all(tmp_path, trials=22, number=1)
    assert len(counts) == 22 and all(count.other == 0 for count in counts.values())
    assert sum(count.found for count in counts.values()) >= 12
    assert all(count.found + count.harmless == 1 for count in counts.values())
