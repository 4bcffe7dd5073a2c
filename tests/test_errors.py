from __future__ import annotations

import pytest

from errors import UserError, exit_code, nearest


def raising(error: BaseException) -> None:
    raise error


def test_a_user_error_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: raising(UserError("two\n  lines"))) == 2
    assert capsys.readouterr() == ("", "error: two lines\n")


def test_ctrl_c_is_130_and_names_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: raising(KeyboardInterrupt())) == 130
    assert "--resume" in capsys.readouterr().err


def test_success_is_0_and_a_bug_keeps_its_traceback() -> None:
    assert exit_code(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: raising(ZeroDivisionError()))


def test_nearest_word() -> None:
    assert nearest("temprature", ["alpha", "temperature"]) == ", did you mean 'temperature'?"
    assert nearest("xyz", ["alpha", "temperature"]) == ""
