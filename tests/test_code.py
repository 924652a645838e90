"""Each DVC stage depends on the files that its command imports, and on no others."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.code import UNLISTED, imported, loaded, main

ROOT = Path(__file__).resolve().parents[1]
STAGES = {name: entry["do"] for name, entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
          if "do" in entry}
ALSO = {"parse_external": {"external"}}  # what a stage's command imports inside a function, networks apart
NEVER = {"parse": loaded("stages/external.py", ROOT)}  # and what it so imports in another stage alone


def listed(path):
    """{file: SHA-256} of one list."""
    return {file: digest for digest, file in (line.split("  ") for line in path.read_text().splitlines())}


@pytest.fixture
def tree(tmp_path):
    """A small project: stages.a imports pipeline.one, which imports pipeline.two, and models.net inside a function."""
    files = {"stages/__init__.py": "from pipeline.params import Params\n",
             "stages/a.py": "import os\nfrom pipeline import one\n\ndef run():\n    from models.net import Net\n",
             "pipeline/__init__.py": "", "pipeline/params.py": "X = 1\n", "models/__init__.py": "",
             "pipeline/one.py": "from pipeline.two import TWO\nimport numpy.linalg\n",
             "pipeline/two.py": "TWO = 2\n", "pipeline/three.py": "", "models/net.py": "from models import base\n",
             "models/base.py": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_list_holds_what_an_import_loads_and_its_hashes(tree):
    main(tree)
    found = listed(tree / "code/stages/a.txt")
    assert sorted(found) == ["pipeline/__init__.py", "pipeline/one.py", "pipeline/two.py", "stages/__init__.py",
                             "stages/a.py"]
    assert found["pipeline/two.py"] == hashlib.sha256(b"TWO = 2\n").hexdigest()
    assert sorted(listed(tree / "code/models/net.txt")) == ["models/__init__.py", "models/base.py", "models/net.py"]


def test_a_list_changes_with_its_own_files_alone_and_goes_with_its_module(tree):
    main(tree)
    before = {path.relative_to(tree).as_posix(): path.read_text() for path in (tree / "code").rglob("*.txt")}
    (tree / "pipeline/three.py").write_text("CHANGED = 1\n")
    (tree / "pipeline/two.py").write_text("TWO = 3\n")
    (tree / "models/base.py").unlink()
    main(tree)
    after = {path.relative_to(tree).as_posix(): path.read_text() for path in (tree / "code").rglob("*.txt")}
    assert before.keys() - after.keys() == {"code/models/base.txt"} and after.keys() <= before.keys()
    assert {name for name in after if after[name] != before[name]} == {"code/stages/a.txt", "code/models/net.txt"}


def test_what_is_loaded_is_what_python_loads():
    """stages.evaluate, imported by a Python of its own: its modules of this project are the listed ones."""
    script = ("import sys, stages.evaluate\n"
              "print(*[module.__file__ for module in sys.modules.values() if getattr(module, '__file__', None)])")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    inside = {Path(name).resolve() for name in done.stdout.split()}
    really = {path.relative_to(ROOT).as_posix() for path in inside if path.is_relative_to(ROOT)
              and path.relative_to(ROOT).parts[0] in ("models", "pipeline", "stages")}
    assert really == loaded("stages/evaluate.py", ROOT)


def test_the_committed_lists_are_current(tmp_path):
    for room in ("models", "pipeline", "stages"):
        shutil.copytree(ROOT / room, tmp_path / room)
    main(tmp_path)
    for path in (tmp_path / "code").rglob("*.txt"):
        committed = ROOT / path.relative_to(tmp_path)
        assert committed.is_file() and committed.read_text() == path.read_text(), \
            f"{committed} is not current: dvc repro code"
    assert len(list((ROOT / "code").rglob("*.txt"))) == len(list((tmp_path / "code").rglob("*.txt")))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_its_command_s_list_and_those_of_what_it_imports_later(stage):
    """A run's network is `code/models/${item.model.name}.txt`, wherever the command can build one."""
    module = re.match(r"python -m stages\.(\w+) ", STAGES[stage]["cmd"])[1]
    files = loaded(f"stages/{module}.py", ROOT)
    lists = {dep for dep in STAGES[stage]["deps"] if dep.startswith("code/")}
    network = {dep for dep in lists if "$" in dep}
    assert lists - network == {f"code/stages/{name}.txt" for name in {module} | ALSO.get(stage, set())}
    assert bool(network) == ("stages/networks.py" in files)
    later = {file for name in files for file in imported(name, ROOT, everywhere=True)} - files
    later -= loaded("stages/networks.py", ROOT) | imported("stages/networks.py", ROOT, everywhere=True)
    later -= NEVER.get(stage, set())
    for name in ALSO.get(stage, set()):
        later -= loaded(f"stages/{name}.py", ROOT)
    assert later <= UNLISTED, f"{stage} imports {sorted(later)} inside functions and names no list of it"
