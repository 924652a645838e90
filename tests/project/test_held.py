"""Files that another process holds open: every reader of HDF5 says so, and none of them calls the file damaged."""

import h5py
import pytest

from pipeline.base.hdf5 import HeldError
from tests.helpers.damaged_h5 import READERS, same
from tests.helpers.held_file import held


class Newer(h5py.File):
    """HDF5 1.10's format, in which a file says itself that somebody has it open; some tools write it by default."""

    def __init__(self, name, mode="r", **options):
        super().__init__(name, mode, **{"libver": ("v110", "v110"), **options})


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_open_elsewhere_is_not_called_damaged(tmp_path, monkeypatch, reader):
    make, read = READERS[reader]
    with monkeypatch.context() as newer:
        newer.setattr(h5py, "File", Newer)
        path = make(tmp_path)
    before = read(path)

    with held(path, "r+") as process:
        with pytest.raises(HeldError, match=rf"{path.name}': another process has it open for writing.*again") as caught:
            read(path)
        process.communicate()
    assert "damaged" not in str(caught.value) and "\n" not in str(caught.value)

    assert same(read(path), before)
