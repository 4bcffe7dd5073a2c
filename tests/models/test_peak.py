from __future__ import annotations

import gc

import pytest
import torch

from models.peak import STATUS, measure_memory_growth, read_process_peak


@pytest.mark.skipif(not STATUS.exists(), reason="the system does not say what is resident")
def test_memory_is_that_of_the_call(hold_for_a_moment):
    gc.collect()  # what other tests left would otherwise go in the middle of it
    cpu = torch.device("cpu")
    large = measure_memory_growth(lambda: hold_for_a_moment(64_000_000), cpu)
    small = measure_memory_growth(lambda: hold_for_a_moment(8000), cpu)
    assert 60e6 < large < 120e6  # 64 MB
    assert small < 10e6  # what came before is forgotten
    assert read_process_peak() > 0
