from __future__ import annotations

from pathlib import Path

import pytest

from errors import UserError
from settings.command_line import CommandLine, match_word, read_folder
from settings.images import Data, Shortcut
from settings.networks import Teacher


@pytest.fixture
def parser() -> CommandLine:
    parser = CommandLine("Some words.")
    parser.add_argument("run", nargs="?")
    parser.add_argument("--phase", type=match_word("teacher", "all"))
    parser.add_argument("--set", nargs="+", default=[], action="extend")
    parser.add_argument("--output-dir", type=read_folder)
    parser.add_argument("--quiet", action="store_true")
    return parser


def test_given_options_are_told_from_defaults(parser: CommandLine, tmp_path: Path) -> None:
    words = ["--set", "a=1", "--set", "b=2", f"--output-dir={tmp_path}", "--quiet", "--quiet"]
    arguments, given = parser.read(words)
    assert (arguments.set, arguments.output_dir, arguments.quiet) == (["a=1", "b=2"], tmp_path, True)
    assert given == {"set", "output_dir", "quiet"}
    assert parser.read([])[1] == set() and parser.read(["here"])[1] == {"run"}


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_folder("~/runs") == tmp_path / "runs"
    data, teacher = Data(root="~/images", cache_dir="~"), Teacher(checkpoint="~/t.pt", init="~nobody/t.pt")
    assert (data.root, data.cache_dir, teacher.checkpoint) == (tmp_path / "images", tmp_path, tmp_path / "t.pt")
    assert teacher.init == Path("~nobody/t.pt") or teacher.init.is_absolute()
    assert Shortcut(cue="file", file="~/cues.csv").file == tmp_path / "cues.csv"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pase", "all"], "--pase is no option of .*, did you mean '--phase'"),
        (["--qui"], "--qui is no option of .*, did you mean '--quiet'"),  # no abbreviation
        (["--pase=all"], "--pase is no option"),
        (["here", "there"], "'there' is one argument too many"),
        (["--phase", "al"], "^--phase: 'al' is none of teacher, all, did you mean 'all'"),
        (["--phase"], "--phase: expected one argument"),
        (["--phase", "all", "--phase", "teacher"], "--phase stands twice"),
        (["--output-dir", ""], "--output-dir: it is empty"),
        (["--output-dir", "caf\udce9"], "not UTF-8"),
        (["--output-dir", "{}/file/below"], "file is no folder"),
        (["--output-dir", "{}/link"], "link is no folder"),
        (["--output-dir", "x" * 300], "File name too long"),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    parser: CommandLine, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match=message):
        parser.read([word.replace("{}", str(tmp_path)) for word in words])
