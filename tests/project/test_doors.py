"""Doors: which room imports from which, by which modules; the walls between pipeline, models and stages."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"base", "config", "datasets", "renderer", "parsing", "caches", "inspection", "loading", "training",
         "retrieval", "reporting"}

# (room, room that it enters) -> the modules that it enters there. Everybody stands on base/, which stands on nothing.
DOORS = {
    ("loading", "caches"): {"cache", "parts_layout"},
    ("parsing", "caches"): {"cache", "parts_layout", "resumable"},
    ("parsing", "datasets"): {"scan"},
    ("parsing", "loading"): {"collate"},
    ("parsing", "training"): {"optimizers"},
    ("inspection", "caches"): {"cache", "parts_layout"},
    ("inspection", "datasets"): {"joints", "protocol"},
    ("inspection", "reporting"): {"plots"},
}


def imported(text: str, home: str = "") -> set[str]:
    """Dotted names that Python text imports, inside functions too; with `home`, its package, relative ones as well.

    >>> sorted(imported("import os.path\\nfrom a import b, c\\ndef f():\\n    from . import d", "x.y"))
    ['a.b', 'a.c', 'os.path', 'x.y.d']
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(home.split(".")[:len(home.split(".")) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def imports(folder: str) -> Iterator[tuple[Path, str]]:
    """Each file below a folder, from the root, and each name of ours that it imports."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        place = file.relative_to(ROOT)
        for name in sorted(imported(file.read_text(encoding="utf-8"), ".".join(place.parent.parts))):
            if name.split(".")[0] in ("pipeline", "models", "stages"):
                yield place, name


def test_rooms_enter_each_other_by_the_doors_alone():
    used: dict[tuple[str, str], set[str]] = {}
    for file, name in imports("pipeline"):
        room, other, module = file.parts[1], *f"{name}..".split(".")[1:3]
        if other not in (room, "base"):
            used.setdefault((room, other), set()).add(module)
        assert room != "base" or other == "base", f"{file} imports {name}, and base/ stands on nothing"
    assert used == DOORS


def test_pipeline_is_rooms_and_nothing_beside_them():
    entries = {path.name for path in (ROOT / "pipeline").iterdir() if path.name != "__pycache__"}
    assert entries == ROOMS | {"__init__.py"}
    assert imported((ROOT / "pipeline/__init__.py").read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_says_in_three_lines_what_comes_in_what_goes_out_and_who_enters(room):
    text = (ROOT / "pipeline" / room / "__init__.py").read_text(encoding="utf-8")
    lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    assert [line.split(" ")[0] for line in lines] == ["In:", "Out:", "Enters:"]
    assert imported(text) == set(), "a room exports nothing twice"


@pytest.mark.parametrize(("folder", "others"), [("pipeline", {"models", "stages"}), ("models", {"pipeline", "stages"})])
def test_pipeline_and_models_import_neither_each_other_nor_stages(folder, others):
    for file, name in imports(folder):
        assert name.split(".")[0] not in others, f"{file} imports {name}"


def test_commands_import_no_other_command():
    """What several of them do stands in stages/shared; stages/__init__.py is their common beginning."""
    commands = {path.stem for path in (ROOT / "stages").glob("*.py")} | {"tools"}
    for file, name in imports("stages"):
        if name.startswith("stages."):
            assert name.split(".")[1] not in commands, f"{file} imports {name}; move what both do to stages/shared"


def test_stages_shared_imports_no_command():
    for file, name in imports("stages/shared"):
        assert not name.startswith("stages.") or name.startswith("stages.shared."), f"{file} imports {name}"


def test_imports_inside_functions_and_relative_ones_are_seen():
    text = "import a.b\nfrom c import d as e\ndef f():\n    from ..g import h\n    from . import i\n"
    assert imported(text, "x.y") == {"a.b", "c.d", "x.g.h", "x.y.i"}
