from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import UserError
from settings.plain_yaml import parse, read_text
from settings.reading import load_config

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "deeper than 50 levels"),
        ("{a: " * 60 + "1" + "}" * 60, "deeper than 50 levels"),
        ("- " * 60 + "a", "deeper than 50 levels"),
        ("[" + "1," * 20_000 + "]", "more than 10,000 keys and values"),
        ("x" * 1_000_001, "more than 1,000,000 bytes"),
        (LAUGHS, "more than 10,000 keys and values, aliases included"),
        (MERGES, "more than 10,000 keys and values, aliases included"),
        (CHAIN, "50 levels"),
        ("a: &a [1, *a]", "line 1 is part of itself"),
        ("a: &a\n  <<: *a", "part of itself"),
        ("a: 1\nb: &b {<<: &c {<<: *b}}", "line 2 is part of itself"),
        ("losses: {dim: 4, dim: 8}", r"dim \(line 1\) stands twice"),
        ("<<: {a: 1}\n<<: {b: 1}", "<< .line 2. stands twice"),
        ("? [1, 2]\n: 3", "keys are words"),
        ("name: a\0b", "NUL byte"),
        ("seeds: [010]", r"010 \(line 1\) reads as octal"),
        (
            "!!python/object/apply:os.system [id]",
            "line 1 .*constructor for the tag .*python/object/apply:os.system",
        ),
        ("a: !mine 3", "line 1 .*constructor for the tag '!mine'"),
        ("a: !!binary aGk=", "constructor for the tag .*binary"),
        ("a: *none", "not valid YAML at line 1"),
        ("a: 0x_", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: !!int [1]", "line 1 .*expected a scalar"),
        ("a: !!bool perhaps", "not valid YAML"),
        ('a: !!int ""', "not valid YAML"),
        ("a: \x07", "not valid YAML"),
    ],
)
def test_hostile_yaml_is_refused_at_once(text: str, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(UserError, match=f"here: .*{message}"):
        parse(text, "here")
    assert time.process_time() - begun < 5


def test_numbers_are_those_that_a_reader_sees() -> None:
    text = "[1:30, 1:30.5, 2020-01-02, 12, -3, 1_000, 0x1f, 0.5, 1.0e-3, 0, yes, null]"
    assert parse(text, "") == ["1:30", "1:30.5", "2020-01-02", 12, -3, 1000, 31, 0.5, 0.001, 0, True, None]


def test_keys_are_words_whatever_they_look_like() -> None:
    assert parse("{1: a, on: b, 2020-01-02: c, ~: d, 1.5: {010: e}}", "") == {
        "1": "a",
        "on": "b",
        "2020-01-02": "c",
        "~": "d",
        "1.5": {"010": "e"},
    }


def test_aliases_and_merges_within_the_limits_are_taken() -> None:
    assert parse("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: {<<: [*a], x: 3}", "") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 3},
    }
    nested = "top: {b: &b {<<: &a {x: 1}, y: 2}}\nc: {<<: *b, x: 3}"
    assert parse(nested, "") == {"top": {"b": {"x": 1, "y": 2}}, "c": {"x": 3, "y": 2}}


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.text(alphabet="ab:&*<>-[]{},!|'\"#%@? \n\t0129._~x", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        values = parse(text, "here")
    except UserError as error:
        assert str(error).startswith("here: ")
    else:
        yaml.safe_dump(values)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop", "name too long", "bytes", "nothing"])
def test_only_text_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "bytes":
        path.write_bytes(b"\x80\x02\xff")
    elif kind == "name too long":
        path = tmp_path / ("x" * 300)
    with pytest.raises(UserError, match="give a YAML file"):
        read_text(path)


def test_long_chains_and_wrong_bases_are_refused(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.yaml").write_text(f"base: {number + 1}.yaml" if number < 29 else "name: end")
    assert load_config(tmp_path / "10.yaml").name == "end"
    with pytest.raises(UserError, match="more than 20 files, each with the next as base"):
        load_config(tmp_path / "9.yaml")
    for base in ("[a]", "{a: b}", "3", '""', '"a\\0b"'):
        (tmp_path / "0.yaml").write_text(f"base: {base}")
        with pytest.raises(UserError, match="name one YAML file|give a YAML file"):
            load_config(tmp_path / "0.yaml")
