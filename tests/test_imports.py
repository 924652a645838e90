"""Imports run one way, and each DVC stage names exactly the files it imports."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("pipeline", "models", "stages")
MAY_IMPORT = {"pipeline": {"pipeline"}, "models": {"models"}, "stages": set(ROOMS)}
# what a stage runs where that is not the file of its name, or not that alone
RUNS = {"parse_external": ("stages/parse.py", "stages/external.py")}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def _file(module: str) -> str | None:
    """A dotted name of this project -> its file, relative; None for other people's modules."""
    path = ROOT.joinpath(*module.split("."))
    if module.split(".")[0] not in ROOMS:
        return None
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found.relative_to(ROOT).as_posix() if found.is_file() else None


def _imports(file: str, *, everywhere: bool) -> set[str]:
    """Project files that `file` imports; `everywhere` counts those inside functions too."""
    tree = ast.parse((ROOT / file).read_text())
    nodes = list(ast.walk(tree)) if everywhere else tree.body
    modules = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    packages = {module.rsplit(".", 1)[0] for module in modules if "." in module}
    return {found for module in modules | packages if (found := _file(module))}


def _reachable(file: str) -> set[str]:
    """All that is loaded with `file`, imports inside functions left out."""
    seen, waiting = set(), {file}
    while waiting:
        current = waiting.pop()
        seen.add(current)
        package = f"{current.split('/')[0]}/__init__.py"
        waiting |= ({package} | _imports(current, everywhere=False)) - seen
    return seen


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    for path in (ROOT / room).glob("*.py"):
        file = path.relative_to(ROOT).as_posix()
        rooms = {found.split("/")[0] for found in _imports(file, everywhere=True)}
        assert rooms <= MAY_IMPORT[room], f"{file} imports from {sorted(rooms - MAY_IMPORT[room])}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_files_it_imports(stage):
    """Not pipeline/params.py, whose values DVC tracks itself. A run's network is `models/${item.model.name}.py`."""
    entry = STAGES[stage]["do"]
    listed = {name for name in entry["deps"] if name.endswith(".py")}
    lazy = {name for name in listed if "$" in name}
    expected = {file for entry in RUNS.get(stage, (f"stages/{stage}.py",)) for file in _reachable(entry)}
    expected -= {"pipeline/params.py"}
    networks = _imports("stages/networks.py", everywhere=True) if "stages/networks.py" in expected else set()
    inside = {name for name in networks - expected if name != "pipeline/params.py"}
    for name in sorted(inside):
        expected |= _reachable(name) - {name}
    assert listed - lazy == expected, f"add {sorted(expected - listed)}, drop {sorted(listed - lazy - expected)}"
    assert bool(inside) == bool(lazy)
