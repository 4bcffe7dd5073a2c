from __future__ import annotations

import gc

import pytest
import torch

from models.peak import STATUS, Peak, process_peak


@pytest.mark.skipif(not STATUS.exists(), reason="the system does not say what is resident")
def test_memory_is_that_of_the_call_and_the_most_of_all(hold_for_a_moment):
    gc.collect()  # what other tests left would otherwise go in the middle of it
    peak = Peak(torch.device("cpu"))
    large = peak.growth(lambda: hold_for_a_moment(64_000_000))
    most = peak.process
    small = peak.growth(lambda: hold_for_a_moment(8000))
    assert 60e6 < large < 120e6  # 64 MB
    assert small < 10e6  # what came before is forgotten
    assert peak.process == most >= large and peak.gpu == 0
    assert process_peak() > 0
