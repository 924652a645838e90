"""The stage paper_tables: what of the papers' files cannot be read stops it before anything is made."""

import shutil
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.config import paths
from stages import paper_tables as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.paper_tables import PRINTED

PAGE = paths.report("toy", "tables") / "index.html"


def test_a_field_that_is_gone_or_damaged_is_named_and_the_last_page_stays(tmp_path, monkeypatch):
    """It was read while the page was written, and told as a folder that could not be."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PRINTED.parent, "docs/papers")
    toy = bare_experiment("toy", plan={"paper_tables": {"all": {"rendered": [], "networks": {}, "tables": []}}})
    stage.run(toy, "all")
    before = PAGE.read_bytes()

    field = Path("docs/papers/field.csv")
    field.write_text(field.read_text() + "Mine,ViT,market1501,1,2,me, myself,nothing\n")
    count = len(field.read_text().splitlines())
    for message in (f"line {count} has 8 cells for 7 columns; quote", "cannot be read .*No such file"):
        with pytest.raises(InputError, match=f"^'docs/papers/field.csv': {message}.*`git checkout docs/papers/field"):
            stage.run(toy, "all")
        field.unlink(missing_ok=True)
    assert PAGE.read_bytes() == before
