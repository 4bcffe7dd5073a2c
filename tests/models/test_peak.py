from __future__ import annotations

import gc

import pytest
import torch

from models.peak import STATUS, measure_memory_growth


@pytest.mark.skipif(not STATUS.exists(), reason="the system does not report resident memory")
def test_memory_growth_is_that_of_the_call(hold_for_a_moment) -> None:
    gc.collect()  # otherwise memory of earlier tests may be freed in the middle of it
    cpu = torch.device("cpu")
    assert 60e6 < measure_memory_growth(lambda: hold_for_a_moment(64_000_000), cpu) < 120e6
    assert measure_memory_growth(lambda: hold_for_a_moment(8000), cpu) < 10e6  # the peak before is forgotten
