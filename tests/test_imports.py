"""Imports run one way."""

from pathlib import Path

import pytest

from stages.code import ROOMS, imported

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {"pipeline": {"pipeline"}, "models": {"models"}, "stages": set(ROOMS)}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    for path in (ROOT / room).glob("*.py"):
        file = path.relative_to(ROOT).as_posix()
        rooms = {found.split("/")[0] for found in imported(file, ROOT, everywhere=True)}
        assert rooms <= MAY_IMPORT[room], f"{file} imports from {sorted(rooms - MAY_IMPORT[room])}"
