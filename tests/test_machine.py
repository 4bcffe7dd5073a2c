from __future__ import annotations

import pytest
import torch

from errors import UserError
from machine import Machine, choose_device, use_bfloat16
from models import build_model

CPU = torch.device("cpu")


def test_devices_by_name():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("toaster", "mps", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {name}"):
            choose_device(name)


def test_precision_is_what_was_asked_for():
    assert use_bfloat16("bfloat16", CPU) and not use_bfloat16("float32", CPU)
    assert isinstance(use_bfloat16("auto", CPU), bool)


@pytest.mark.parametrize(("bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_networks_run_in_the_chosen_precision(bfloat16, dtype):
    machine = Machine(CPU, bfloat16)
    model = machine.place(build_model("resnet8", 3))
    with machine.autocast():
        assert model(torch.zeros(2, 3, 8, 8)).dtype == dtype
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
