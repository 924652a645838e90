"""What every command's code is: python -m stages.code

DVC follows no imports. For each module of stages/ and models/ this writes code/<room>/<module>.txt, the SHA-256 and
path of every file of this project that importing it loads, as sha256sum prints them; a stage of dvc.yaml depends on the
list of its command. What reads parameters is left out: DVC tracks their values. So are imports inside functions: a
stage whose command makes them names the other module's list too.
"""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.images import file_sha256

ROOMS = ("models", "pipeline", "stages")
LISTED = ("models", "stages")
UNLISTED = {"pipeline/params.py", "pipeline/params_file.py"}


def main(root: Path = Path()) -> None:
    """Write code/ below root, from nothing: a list whose module is gone goes too."""
    shutil.rmtree(root / "code", ignore_errors=True)
    for room in LISTED:
        (root / "code" / room).mkdir(parents=True)
        for path in sorted((root / room).glob("*.py")):
            files = sorted(loaded(path.relative_to(root).as_posix(), root) - UNLISTED)
            lines = (f"{file_sha256(root / file)}  {file}\n" for file in files)
            (root / "code" / room / f"{path.stem}.txt").write_text("".join(lines), encoding="utf-8")


def loaded(file: str, root: Path) -> set[str]:
    """All files of this project that are loaded with `file`, such as stages/train.py, itself among them."""
    seen, waiting = set(), {file}
    while waiting:
        current = waiting.pop()
        seen.add(current)
        waiting |= ({f"{current.split('/')[0]}/__init__.py"} | imported(current, root)) - seen
    return seen


def imported(file: str, root: Path, *, everywhere: bool = False) -> set[str]:
    """Files of this project that `file` imports itself; `everywhere` counts those inside functions too."""
    tree = ast.parse((root / file).read_text(encoding="utf-8"))
    modules = set(_modules(list(ast.walk(tree)) if everywhere else tree.body))
    packages = {module.rsplit(".", 1)[0] for module in modules if "." in module}
    return {found for module in modules | packages if (found := _file(module, root))}


def _modules(nodes: list[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    """Dotted names that import statements among the nodes may mean."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _file(module: str, root: Path) -> str | None:
    """A dotted name -> its file below root; None for other people's modules and for names that are no module."""
    if module.split(".")[0] not in ROOMS:
        return None
    path = root.joinpath(*module.split("."))
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found.relative_to(root).as_posix() if found.is_file() else None


if __name__ == "__main__":
    main()
