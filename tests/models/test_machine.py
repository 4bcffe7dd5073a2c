from __future__ import annotations

import pytest
import torch

from errors import UserError, info, warn
from models import machine as machine_module
from models.machine import Machine, choose_device, open_machine, supports_bfloat16
from models.zoo import build_model

CPU = torch.device("cpu")


def test_devices_by_name() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("toaster", "mps", "cuda:99", "cpu:1", "", "cuda:-1"):
        with pytest.raises(UserError, match=f"--device {name}"):
            choose_device(name)


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_where_the_hardware_has_it(monkeypatch, capsys, native) -> None:
    monkeypatch.setattr(machine_module, "supports_bfloat16", lambda device: native)
    warn.cache_clear()
    assert open_machine("auto", CPU).bfloat16 is native
    assert open_machine("float32", CPU).dtype == open_machine("auto", CPU).dtype or native
    assert capsys.readouterr().err == ""
    assert open_machine("bfloat16", CPU).bfloat16 and open_machine("bfloat16", CPU).bfloat16
    assert capsys.readouterr().err.count("precision=bfloat16 is not native") == (0 if native else 1)


@pytest.mark.parametrize(
    ("limit", "instructions", "native"),
    [
        ("AVX2", {"avx512_bf16": True}, False),
        ("AVX512", {"avx512_bf16": True}, True),
        ("AVX512", {"avx512_f": True}, False),
    ],
)
def test_torchs_own_limit_on_instructions_is_respected(monkeypatch, limit, instructions, native) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: limit)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    assert supports_bfloat16(CPU) is native


def test_float16_is_never_automatic_and_warned_about(monkeypatch, capsys) -> None:
    monkeypatch.setattr(machine_module, "supports_bfloat16", lambda device: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {}, raising=False)
    warn.cache_clear()
    info.cache_clear()
    asked = open_machine("float16", CPU)
    assert asked.float16 and asked.dtype == torch.float16 and asked.precision == "float16"
    assert "precision=float16 is not native to this processor" in capsys.readouterr().err
    made_reproducible = []
    monkeypatch.setattr(machine_module, "compute_reproducibly", made_reproducible.append)
    old = open_machine("auto", torch.device("cuda"))  # of a capability below 8.0
    assert made_reproducible == [torch.device("cuda")]
    assert old.dtype == torch.float32
    assert "precision=auto is float32 on this GPU" in capsys.readouterr().err
    open_machine("float16", torch.device("cuda"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("machine", "dtype"),
    [
        (Machine(CPU, bfloat16=True), torch.bfloat16),
        (Machine(CPU, bfloat16=False), torch.float32),
        (Machine(CPU, bfloat16=False, float16=True), torch.float16),
    ],
)
def test_networks_run_in_the_chosen_precision(machine, dtype) -> None:
    model = machine.place(build_model("resnet8", 3))
    with machine.autocast():
        assert model(torch.zeros(2, 3, 8, 8)).dtype == dtype
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
