"""The rooms of the house and the arrows between them, read from the imports: serves no module, but all of them."""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[1]
ROOT_MODULES = {"main", "main_eval", "errors", "files"}
PURE = {"torch", "numpy", "scipy", "sklearn"}  # all that a file which can be lifted out may need

# room -> rooms it may import; what stands lower may be used by what stands higher, never the reverse
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "losses": set(),
    "CKA": set(),
    "estimator": set(),
    "settings": {"errors", "files", "losses"},  # losses by LAZY
    "models": {"settings", "errors", "files"},
    "dataset": {"settings", "errors", "files"},
    "training": {"CKA", "settings", "dataset", "errors", "files", "losses", "models"},
    "diagnostics": {"CKA", "settings", "dataset", "errors", "estimator", "files", "losses", "models", "training"},
    "study": {"settings", "dataset", "diagnostics", "errors", "files", "models", "training"},
    "main": {"settings", "dataset", "errors", "models", "study", "training"},
    "main_eval": {"settings", "dataset", "diagnostics", "errors", "files", "models", "study", "training"},
}
LAZY = "settings.loss_options"  # imports losses, and torch with them, in functions
MAY_IMPORT["benchmarks"] = set(MAY_IMPORT) - {"main", "main_eval"} | {"benchmarks"}

LIFTABLE = ("losses", "CKA", "estimator", "diagnostics.statistics")  # torch and numpy in, numbers out

# within diagnostics: a page is made of tables and figures, and those of measures
UPWARDS = {
    "diagnostics.tables": ("diagnostics.report", "diagnostics.figures"),
    "diagnostics.figures": ("diagnostics.report", "diagnostics.tables"),
}


def modules(root: Path) -> dict[str, Path]:
    """Every module outside the tests by its dotted name."""
    rooms = [root / room for room in MAY_IMPORT if (root / room).is_dir()]
    paths = [*root.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths
    }


def imports(root: Path) -> dict[str, set[str]]:
    """What each module imports: modules of this project by their dotted names, others by their first part."""
    known = modules(root)
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                room = name.partition(".")[0]
                relative = node.level == 1 and room == "losses"  # whose files are copied to other places
                assert node.level == 0 or relative, f"{name}: a relative import hides which room is entered"
                source = f"{room}.{node.module}" if relative else str(node.module)
                inner = [f"{source}.{alias.name}" for alias in node.names]
                named = [one if one in known else source for one in inner]
            else:
                continue
            found[name] |= {one if one in known else one.partition(".")[0] for one in named} - {name}
    return found


def breaches(root: Path) -> list[str]:
    """Every import that a rule forbids, in words."""
    graph = imports(root)
    lines = []
    for module, used in graph.items():
        room = module.partition(".")[0]
        for other in sorted(used):
            other_room = other.partition(".")[0]
            own = other in graph
            if own and room == "settings" and other_room == "losses" and module != LAZY:
                lines.append(f"{module} imports {other}: of settings {LAZY} alone may import losses")
            if own and other_room != room and other_room not in MAY_IMPORT[room]:
                lines.append(f"{module} imports {other}: {room} may not import {other_room}")
            if module.startswith(LIFTABLE) and _is_foreign(module, other, own):
                lines.append(f"{module} imports {other}: it could not be lifted out any more")
            for start, forbidden in UPWARDS.items():
                if module.startswith(start) and other.startswith(forbidden):
                    lines.append(f"{module} imports {other}: {start} stands below it")
    return lines


def _is_foreign(module: str, other: str, own: bool) -> bool:
    if own:
        return module.partition(".")[0] != other.partition(".")[0] or module.startswith("diagnostics")
    return other not in PURE and other not in sys.stdlib_module_names


def test_every_arrow_points_down() -> None:
    assert breaches(ROOT) == []


def test_there_are_no_circles() -> None:
    graph = imports(ROOT)
    try:
        TopologicalSorter({name: used & graph.keys() for name, used in graph.items()}).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_the_root_holds_the_entry_points_and_nothing_else_that_is_python() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == ROOT_MODULES


def test_the_files_that_are_tested_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("module", "planted", "breach"),
    [
        ("losses/planted.py", "from settings.schema import CRD", "losses may not import settings"),
        ("losses/planted.py", "import pydantic", "it could not be lifted out any more"),
        (
            "settings/planted.py",
            "def late():\n    from losses.loss import Loss",
            "loss_options alone may",
        ),
        ("diagnostics/statistics.py", "from diagnostics import seeds", "it could not be lifted out any more"),
        ("training/planted.py", "def late():\n    from diagnostics import seeds", "training may not import"),
        ("models/planted.py", "import study.grid", "models may not import study"),
        ("study/planted.py", "from main import run", "study may not import main"),
        ("diagnostics/tables/planted.py", "from diagnostics.report import page", "tables stands below it"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, module: str, planted: str, breach: str) -> None:
    there = (
        "settings/schema",
        "diagnostics/seeds",
        "diagnostics/report/page",
        "losses/loss",
        "study/grid",
        "main",
    )
    for name in (*there, "main"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").touch()
    (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
    assert breaches(tmp_path) == []
    (tmp_path / module).write_text(planted, encoding="utf-8")
    found = breaches(tmp_path)
    assert found and all(line.startswith(module.removesuffix(".py").replace("/", ".")) for line in found)
    assert any(breach in line for line in found)


def imported_with(module: str, root: Path) -> set[str]:
    """Modules that importing one brings along, those of other packages by their dotted name.

    What functions import, and what stands under TYPE_CHECKING, is left out.
    """
    known, found, waiting = modules(root), set(), [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in known:
            for node in ast.parse(known[name].read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Import):
                    waiting += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    source = f"{name.rpartition('.')[0]}.{node.module}" if node.level else str(node.module)
                    waiting += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return found


@pytest.mark.parametrize("module", ["study.report", "study.measurements"])
def test_a_studys_report_waits_for_no_import_of_torch(module: str) -> None:
    slow = {"torch", "torchvision", "sklearn", "scipy.stats", "tqdm"}
    brought = imported_with(module, ROOT)
    assert "numpy" in brought and not brought & slow
    assert "torch" in imported_with("diagnostics.evaluation.analysis", ROOT)  # such an import would be seen


def test_configs_are_read_without_losses_and_torch() -> None:
    for module in ("settings.reading", LAZY):
        brought = {name.partition(".")[0] for name in imported_with(module, ROOT)}
        assert "pydantic" in brought and not brought & {"losses", "torch", "numpy"}
    assert {"losses.loss", "torch"} <= imported_with("losses.crd", ROOT)  # such an import would be seen


def test_images_are_read_and_cues_planted_without_torchvision() -> None:
    assert {"torch"} <= imported_with("dataset.cues.shortcut", ROOT)
    for module in ("dataset.sources", "dataset.cues.shortcut", "dataset.prepare"):
        assert "torchvision" not in {name.partition(".")[0] for name in imported_with(module, ROOT)}
