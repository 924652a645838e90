"""Folders of made-up results."""

import pytest


@pytest.fixture
def folders(tmp_path):
    """Where results and their curves lie."""
    places = {"results": tmp_path / "results", "curves": tmp_path / "curves"}
    for folder in places.values():
        folder.mkdir()
    return places
