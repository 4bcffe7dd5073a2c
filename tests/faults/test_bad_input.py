"""Every input of bad_inputs.py: one line on stderr, exit code 2, nothing new on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import main
from tests.faults.bad_inputs import CASES, BadInput, make_inputs, refuse


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=[f"{number}" for number in range(len(CASES))])
def test_one_line_exit_code_2_and_nothing_written(folder: Path, case: BadInput) -> None:
    found = refuse(case, folder)
    assert found.code == 2
    assert found.printed.count("\n") == 1 and found.printed.startswith("error: ")
    assert case.named in found.printed
    assert found.added == ()


def test_there_are_a_hundred() -> None:
    assert len({(case.command, case.words) for case in CASES}) == len(CASES) >= 100


def test_the_same_as_a_person_sees_it(folder: Path) -> None:
    command = [sys.executable, str(Path(main.__file__)), "--phas", "all"]
    done = subprocess.run(command, cwd=folder / "empty", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --phas is no option of main.py, did you mean '--phase'? (--help lists all)\n"
    assert list((folder / "empty").iterdir()) == []


def test_a_later_stage_needs_the_one_before(call_main, tmp_path: Path) -> None:
    assert call_main(tmp_path, "--phase", "teacher", "--quiet").returncode == 0
    before = sorted(tmp_path.rglob("*"))
    done = call_main(tmp_path, "--phase", "kd")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "two_stage stage 2 seed 0 needs two_stage stage 1, which is not finished in" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
