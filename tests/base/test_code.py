"""Code by its content: what changes it and what does not."""

import pytest

from pipeline.base import code
from pipeline.base.errors import InputError


def test_it_is_of_the_named_folders_files_and_single_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "ROOT", tmp_path)
    for name in ("room/a.py", "room/below/b.py", "other/c.py", "other/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a = 1\n")
    places = ("room", "other/c.py")
    first = code.code_sha256(*places)
    assert first == code.code_sha256("other/c.py", "room") == code.code_sha256("room", "room/a.py", "other/c.py")
    for name, counts in (("room/a.py", True), ("other/c.py", True), ("room/below/b.py", False), ("other/d.py", False),
                         ("room/notes.txt", False), ("room/new.py", True)):
        before = (tmp_path / name).read_text() if (tmp_path / name).exists() else None
        (tmp_path / name).write_text("a = 2\n")
        assert (code.code_sha256(*places) != first) is counts, name
        if before is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_text(before)
    (tmp_path / "room/a.py").rename(tmp_path / "room/z.py")
    assert code.code_sha256(*places) != first
    with pytest.raises(InputError, match=r"gone\.py': cannot be read"):
        code.code_sha256("gone.py")


def test_what_stages_name_is_there():
    from stages import embed, train, warp
    from stages.shared import cache_parsers, parser_training
    for stage in (embed, train, warp, cache_parsers, parser_training):
        for place in stage.CODE:
            found = code.ROOT / place
            assert found.is_file() or [*found.glob("*.py")], place
