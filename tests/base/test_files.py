"""Files and folders are written whole or not at all, and every failure to write is one sentence."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.base.files import (
    file_sha256,
    new_file,
    new_folder,
    writable,
    write_bytes,
    write_json,
    write_text,
    writing,
)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fill(folder: Path) -> None:
    """A folder `out` with one file."""
    with new_folder(folder) as work:
        (work / "new").write_text("new")


def test_what_is_written_is_what_is_read(tmp_path):
    write_bytes(tmp_path / "a/b/bytes", b"\0\r\n")
    write_text(tmp_path / "text", "one\ntwo\u00e9\udcff\n")
    write_json(tmp_path / "json", {"b": 1, "a": [2]})
    assert (tmp_path / "a/b/bytes").read_bytes() == b"\0\r\n"
    assert (tmp_path / "text").read_bytes() == b"one\ntwo\xc3\xa9\xff\n"  # a name that is no UTF-8 keeps its bytes
    assert json.loads((tmp_path / "json").read_text()) == {"a": [2], "b": 1}
    assert (tmp_path / "json").read_text().index('"a"') < (tmp_path / "json").read_text().index('"b"')
    assert names(tmp_path) == ["a", "a/b", "a/b/bytes", "json", "text"]


def test_a_failure_keeps_the_old_file_and_leaves_no_half_of_the_new_one(tmp_path):
    write_text(tmp_path / "file", "old")
    for error in (ValueError, KeyboardInterrupt, RuntimeError):
        with pytest.raises(error), new_file(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise error
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_failure_keeps_the_old_folder_and_leaves_no_half_of_the_new_one(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("old")
    with pytest.raises(KeyError), new_folder(tmp_path / "out") as work:
        (work / "new").write_text("half")
        raise KeyError
    assert names(tmp_path) == ["out", "out/old"]


def test_a_new_folder_replaces_the_old_one_and_what_a_killed_process_left(tmp_path):
    for left in (".out.tmp", ".out.old", "out"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "old").write_text("old")
    fill(tmp_path / "out")
    fill(tmp_path / "made/too")
    assert names(tmp_path) == ["made", "made/too", "made/too/new", "out", "out/new"]


def test_a_linked_folder_is_replaced_where_it_is_and_a_linked_file_where_the_link_is(tmp_path):
    """A user may put a folder on another disk; DVC's links lead into its cache, which must not be written to."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/old").write_text("old")
    (tmp_path / "out").symlink_to("disk")
    fill(tmp_path / "out")
    assert (tmp_path / "out").is_symlink() and names(tmp_path / "disk") == ["new"]

    (tmp_path / "cached").write_text("old")
    (tmp_path / "file").symlink_to("cached")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "cached").read_text() == "old" and not (tmp_path / "file").is_symlink()


def test_a_folder_in_a_file_s_way_and_a_file_in_a_folder_s(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    with pytest.raises(InputError, match="folder': cannot be written .a folder has this name.; make room"):
        write_text(tmp_path / "folder", "new")
    with pytest.raises(InputError, match="file': cannot be written .a file has this name.; make room"):
        fill(tmp_path / "file")
    for write in (lambda path: write_text(path, "new"), fill):
        with pytest.raises(InputError, match="file/out': cannot be written .*/file. is no folder"):
            write(tmp_path / "file/out")
    assert names(tmp_path) == ["file", "folder"] and (tmp_path / "file").read_text() == "old"


def test_what_could_not_be_written_is_known_before_the_work(tmp_path, monkeypatch):
    """And nothing is left behind of finding out, in folders that are there or are not."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    (tmp_path / "loose").symlink_to("nowhere")
    before = names(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, folder, said in (("folder", False, "a folder has this name"), ("file", True, "a file has this name"),
                               ("file/out", False, "/file. is no folder"), ("file/a/b", True, "/file. is no folder"),
                               ("loose/out", False, "/loose. is no folder"), ("/proc/out", False, "No such file"),
                               ("/proc/out", True, "No such file"), ("x" * 300, False, "File name too long"),
                               ("/dev/shm", True, "a disk is mounted here")):
        with pytest.raises(InputError, match=f"{name}': cannot be written .*{said}.*; make room or mend"):
            writable(name, folder=folder)
    for name, folder in (("file", False), ("folder", True), ("new/deep/out", False), ("new/deep/out", True),
                         ("x" * 250, False)):
        writable(name, folder=folder)
    assert names(tmp_path) == before and (tmp_path / "file").read_text() == "old"


def test_a_full_disk_is_known_before_the_work(tmp_path, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="out': cannot be written .No space left on device.; make room"):
        writable(tmp_path / "out")
    assert names(tmp_path) == []


def test_what_cannot_be_written_is_named_with_the_reason_and_what_is_kept(tmp_path):
    with pytest.raises(InputError, match="^'out': cannot be written .No space left on device.; make room or mend the "
                                         "folder and run again, units are kept$"), \
            writing("out", kept="units are kept"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    hdf5 = "Can't decrement id ref count (file write failed: errno = 28,\nerror message = 'No space left', buf = 0)"
    for error in (RuntimeError(hdf5), OSError(hdf5)):
        with pytest.raises(InputError, match="^'out': cannot be written .No space left.; [^\n]*again$"), writing("out"):
            raise error
    with pytest.raises(RuntimeError, match="^a fault of ours$"), writing("out"):
        raise RuntimeError("a fault of ours")


def save_often(path: Path, value: int) -> None:
    for _ in range(200):
        with new_file(path, shared=True) as temporary:
            temporary.write_bytes(bytes([value]) * 10_000)


def test_processes_that_write_one_file_at_once_leave_a_whole_one(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=save_often, args=(tmp_path / "file", value))
                 for value in (1, 2)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if (tmp_path / "file").exists():
            data = (tmp_path / "file").read_bytes()
            assert len(data) == 10_000 and len(set(data)) == 1
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0] and names(tmp_path) == ["file"]


def test_a_file_s_sha256_or_a_sentence(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS
    for name in ("none", ".", "\0"):
        with pytest.raises(InputError, match="cannot be read"):
            file_sha256(tmp_path / name)
