from __future__ import annotations

import sys
from pathlib import Path

import pytest

from errors import UserError
from settings.own_code import digest_code, is_own, load_own

CODE = """
class Net:
    class Inner: pass
def make(): return 3
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, under a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"own_code_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE, encoding="utf-8")
    return name


def test_a_colon_marks_own_code() -> None:
    assert is_own("package.module:Name") and not is_own("resnet8") and not is_own("timm/resnet8")


def test_importing_own_code_is_announced_once(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_own("losses", f"{own}:Net").__name__ == "Net"
    assert load_own("losses", f"{own}:Net.Inner").__name__ == "Inner"
    assert load_own("losses", f"{own}:make")() == 3
    load_own("losses", f"{own}:Net")
    told = capsys.readouterr().err
    assert told.count(f"losses {own}:Net: imported ") == 1 and f"{own}.py, which is code of your own" in told


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OWN:Nett", r"losses OWN:Nett: .*OWN\.py has no Nett, did you mean 'Net'\?"),
        ("OWN:number", "losses OWN:number: number is a int, name a class or a function"),
        ("no_such_module:Net", "losses no_such_module:Net: no module no_such_module, neither installed nor in "),
        ("no_such.module:Net", "no module no_such, neither installed nor in "),
        (":Net", "losses :Net: write package.module:name, a module as `import` takes it"),
        ("../net.py:Net", "write package.module:name"),
    ],
)
def test_missing_code_is_named(own: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("OWN", own)) as caught:
        load_own("losses", name.replace("OWN", own))
    assert "\n" not in str(caught.value)


def test_a_module_that_raises_is_named(own: str, tmp_path: Path) -> None:
    (tmp_path / f"{own}_bad.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"importing {own}_bad raised ZeroDivisionError: division by zero"):
        load_own("arch", f"{own}_bad:Net")
    (tmp_path / f"{own}_needs.py").write_text("import absent_thing\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"no module absent_thing, which {own}_needs imports, is not installed"):
        load_own("arch", f"{own}_needs:Net")


def test_digest_changes_with_the_file(own: str, tmp_path: Path) -> None:
    assert digest_code("arch", "resnet8") == ""
    before = digest_code("arch", f"{own}:Net")
    assert len(before) == 16 and before == digest_code("losses", f"{own}:make")
    (tmp_path / f"{own}.py").write_text(CODE + "# changed\n", encoding="utf-8")
    assert digest_code("arch", f"{own}:Net") != before
