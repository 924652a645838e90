"""Code dependencies: what a stage's command imports lies under the stage's dependencies, and each of them is reached.

DVC does not follow imports. A room's folder covers the room; a change in a file outside every dependency would leave
what the stage made looking up to date, a dependency that is not reached would make it again for nothing.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("models", "pipeline", "stages")
STAGES = {name: entry["do"] for name, entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()}
BY_NAME = "stages/shared/trained_run.py"  # imports `models.{name}`: dvc.yaml names that file as models/${item.model}.py
NETWORKS = frozenset(path.stem for path in (ROOT / "models").glob("*.py")
                     if f"class {path.stem.capitalize()}(" in path.read_text())

# (stage, file that imports) -> what it imports there and another stage alone runs into.
ELSEWHERE = {
    **{(stage, "stages/shared/cache_parsers.py"): {"stages/shared/external_parsers.py"}  # .._external, .._described
       for stage in ("parse", "parse_crops")},
    **{(stage, "stages/embed.py"): {"models/sorn.py"} for stage in ("embed", "embed_two", "embed_three")},  # embed_seen
}


@functools.cache
def imported(file: str, root: Path = ROOT) -> frozenset[str]:
    """The project's files that one file imports, anywhere in it, and the data files beside it that it names."""
    found: set[str] = set()
    if not file.endswith(".py"):
        return frozenset()
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+\.\w+", node.value):
            beside = Path(file).with_name(node.value)
            found |= {beside.as_posix()} if (root / beside).is_file() else set()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = Path(file).parts[:-node.level] if node.level else ()
            module = ".".join(part for part in (*package, node.module) if part)
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        found |= {path for name in names if name.split(".")[0] in ROOMS for path in _files(name, root)}
    return frozenset(found)


def _files(module: str, root: Path) -> Iterator[str]:
    """pipeline.base.files -> its file and those of the packages that it lies in."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        place = Path(*parts[:length])
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if (root / path).is_file():
                yield path.as_posix()


def closure(*files: str, root: Path = ROOT, without: dict[str, set[str]] | None = None) -> set[str]:
    """The project's files that a Python ends up with which runs these. without: imports of a file not to follow."""
    found, todo = set(), set(files)
    while todo:
        file = todo.pop()
        found.add(file)
        todo |= imported(file, root) - (without or {}).get(file, set()) - found
    return found


def reached(stage: str, network: str) -> set[str]:
    """What a stage's command imports where the run's network is models/NETWORK.py, without parameters and packages."""
    command = re.match(r"python -m stages\.(\w+) \$\{", STAGES[stage]["cmd"])
    assert command, STAGES[stage]["cmd"]
    without = {file: names for (name, file), names in ELSEWHERE.items() if name == stage}
    files = closure("stages/__init__.py", f"stages/{command[1]}.py", without=without)
    if BY_NAME in files:
        files |= closure(f"models/{network}.py")
    return {file for file in files if not file.startswith("pipeline/config/") and not file.endswith("__init__.py")}


def dependencies(stage: str, network: str) -> list[str]:
    """A stage's code among its dependencies."""
    deps = [dep.replace("${item.model}", network) for dep in STAGES[stage]["deps"]]
    return [dep for dep in deps if dep.split("/")[0] in ROOMS and "$" not in dep]


def covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_a_stage_s_command_imports_lies_under_its_dependencies(stage):
    for network in NETWORKS:
        deps = dependencies(stage, network)
        loose = sorted(file for file in reached(stage, network) if not any(covers(dep, file) for dep in deps))
        assert loose == [], f"dvc.yaml: {stage} (with {network}) imports {loose} and depends on {deps}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_code_that_its_command_does_not_import(stage):
    used = {dep for network in NETWORKS for dep in dependencies(stage, network)
            if any(covers(dep, file) for file in reached(stage, network))}
    named = {dep for network in NETWORKS for dep in dependencies(stage, network)}
    assert named - used == set(), f"dvc.yaml: {stage} never imports {sorted(named - used)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_s_code_exists(stage):
    for network in NETWORKS:
        for dep in dependencies(stage, network):
            assert (ROOT / dep).exists(), f"dvc.yaml: {stage} depends on {dep}, which is not there"


def test_what_is_imported_elsewhere_is_still_imported():
    for (stage, file), names in ELSEWHERE.items():
        assert stage in STAGES and names <= imported(file)


def test_packages_hold_nothing_that_a_result_could_depend_on():
    """Their files are no dependency: a room's says what it is for, these two hold what no result depends on."""
    allowed = {"stages/__init__.py",  # reads the parameters, turns mistakes into sentences
               "models/parsers/__init__.py"}  # makes torchvision importable
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("__init__.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        said = all(isinstance(node, ast.Expr) for node in body)
        assert said or path.relative_to(ROOT).as_posix() in allowed, f"{path} has code; put it into a module"


def test_imports_are_found_in_functions_and_through_packages(tmp_path):
    files = {"stages/__init__.py": "from pipeline.config.schema import Params\n",
             "stages/a.py": "import os\nfrom pipeline.one import two\n\ndef run():\n    from models.net import Net\n",
             "pipeline/__init__.py": "", "pipeline/config/__init__.py": "", "pipeline/config/schema.py": "X = 1\n",
             "pipeline/one/__init__.py": "", "pipeline/one/two.py": "from . import three\nimport numpy.linalg\n",
             "pipeline/one/three.py": "NAMES = 'table.csv', 'no.csv'\n", "pipeline/one/table.csv": "",
             "pipeline/one/four.py": "", "models/__init__.py": "", "models/net.py": "import models.base\n",
             "models/base.py": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {file for file in closure("stages/a.py", root=tmp_path) if not file.endswith("__init__.py")}
    assert found == {"stages/a.py", "pipeline/one/two.py", "pipeline/one/three.py", "pipeline/one/table.csv",
                     "models/net.py", "models/base.py"}
    assert {file for file in closure("stages/a.py", root=tmp_path, without={"stages/a.py": {"models/net.py"}})
            if file.startswith("models")} == {"models/__init__.py"}
