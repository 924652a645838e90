"""The CSV of one's own data set: right answers, or an InputError in one sentence, and nothing else."""

import csv
import io
import posixpath
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.datasets.custom import read_csv, read_folder
from pipeline.datasets.index import check_index, read_index, write_index
from tests.helpers.trees import rows, touch

FILES = ("a.jpg", "b c.png", "deep/er/a.jpg", "ä, \"ö\".jpg", "0001_c1.tif")


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        touch(Path(name), *FILES)
        yield Path(name)


def _write(folder: Path, text: str | bytes) -> None:
    (folder / "images.csv").write_bytes(text.encode() if isinstance(text, str) else text)


def test_a_csv_of_ones_own(folder, tmp_path):
    _write(folder, 'split,note,pid,path,camid\r\nquery,x,7,a.jpg,0\r\n\r\ngallery,"y,\nz",007,./a.jpg,3\r\n'
                   'train,,0,"ä, ""ö"".jpg", 12 \r\ngallery,,-1,b c.png,1\r\n')
    frame = read_csv(folder)
    assert rows(frame) == [("gallery/a.jpg", "a.jpg", 7, 3, "gallery"), ("query/a.jpg", "a.jpg", 7, 0, "query"),
                           ('train/ä, "ö".jpg', 'ä, "ö".jpg', 0, 12, "train")]
    write_index(frame, tmp_path / "index.csv")
    assert rows(read_index(tmp_path / "index.csv")) == rows(frame)


def test_a_byte_order_mark_is_no_part_of_the_first_column(folder):
    _write(folder, b"\xef\xbb\xbfpath,pid,camid,split\na.jpg,1,2,query\n")
    assert rows(read_csv(folder)) == [("query/a.jpg", "a.jpg", 1, 2, "query")]


@pytest.mark.parametrize("text,said", [
    ("", r"the header has the column 'path' 0 times; its first line must name path,pid,camid,split"),
    ("path,pid,camid\na.jpg,1,2\n", r"the header has the column 'split' 0 times"),
    ("path,pid,pid,camid,split\n", r"the header has the column 'pid' 2 times"),
    ("path;pid;camid;split\na.jpg;1;2;query\n", r"the header has the column 'path' 0 times.*separated by commas"),
    ("path,pid,camid,split\n", r"names no image of anybody"),
    ("path,pid,camid,split\na.jpg,-1,2,query\n", r"names no image of anybody"),
    ("path,pid,camid,split\na.jpg,1,2\n", r"line 2: has 3 values where the header has 4"),
    ("path,pid,camid,split\n\na.jpg,1,2,query,x\n", r"line 3: has 5 values where the header has 4"),
    ("path,pid,camid,split\na.jpg,1.0,2,query\n", r"line 2: pid is '1.0'; write a whole number from 0 up, or -1"),
    ("path,pid,camid,split\na.jpg,-2,2,query\n", r"line 2: pid is '-2'; write a whole number"),
    ("path,pid,camid,split\na.jpg,1_0,2,query\n", r"line 2: pid is '1_0'; write a whole number"),
    ("path,pid,camid,split\na.jpg,٣,2,query\n", r"line 2: pid is '٣'; write a whole number"),
    (f"path,pid,camid,split\na.jpg,{'9' * 19},2,query\n", r"line 2: pid is '9999999999999999999'"),
    ("path,pid,camid,split\na.jpg,1,-1,query\n", r"line 2: camid is '-1'; write a whole number from 0 up$"),
    ("path,pid,camid,split\na.jpg,1,,query\n", r"line 2: camid is ''; write a whole number"),
    ("path,pid,camid,split\na.jpg,1,2,test\n", r"line 2: split is 'test'; write one of train, query, gallery"),
    ("path,pid,camid,split\n../outside.jpg,1,2,query\n", r"path '../outside.jpg' is empty or leads out of"),
    ("path,pid,camid,split\ndeep/../../outside.jpg,1,2,query\n", r"line 2: the path .* leads out of"),
    ("path,pid,camid,split\n/etc/hostname,1,2,query\n", r"line 2: the path '/etc/hostname' is empty or leads out of"),
    ("path,pid,camid,split\n,1,2,query\n", r"line 2: the path '' is empty or leads out of"),
    ("path,pid,camid,split\n\"a\n.jpg\",1,2,query\n", r"line 3: the path 'a\\n.jpg' holds a line break"),
    ("path,pid,camid,split\nc.jpg,1,2,query\n", r"line 2: there is no file '.*/c.jpg'; correct the path"),
    ("path,pid,camid,split\ndeep,1,2,query\n", r"line 2: there is no file '.*/deep'; correct the path"),
    (f"path,pid,camid,split\n{'a' * 5000},1,2,query\n", r"line 2: there is no file"),
    ("path,pid,camid,split\na.jpg,1,2,query\ndeep/er/a.jpg,1,2,query\n./a.jpg,2,2,query\n",
     r"lines 2 and 4 both name 'a.jpg' for the split 'query'; remove one"),
    ("path,pid,camid,split\n\"a.jpg,1,2,query\n", r"is no CSV in UTF-8 \(unexpected end of data\); save it again"),
    (b"path,pid,camid,split\n\xff.jpg,1,2,query\n", r"is no CSV in UTF-8 \(.*0xff.*\); save it again"),
    (b"path,pid,camid,split\na\x00.jpg,1,2,query\n", r"images.csv'.*: ")])
def test_mistakes_are_named(folder, text, said):
    _write(folder, text)
    with pytest.raises(InputError, match=said) as caught:
        read_csv(folder)
    assert str(folder / "images.csv") in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(InputError, match="images.csv': no such file; the data set's folder needs a CSV of that name"):
        read_csv(tmp_path)


NUMBERS = st.one_of(st.integers(-1, 3).map(str), st.sampled_from(["", "x", "1.0", "-2", "+1", "1e3", " 4 ", "0x1"]))
PATHS = st.one_of(st.sampled_from(FILES), st.sampled_from(["none.jpg", "../a.jpg", "./a.jpg", "deep"]),
                  st.text(max_size=4))
SPLITS = st.sampled_from(["train", "query", "gallery", "gallery ", "test", ""])
LINES = st.lists(st.tuples(PATHS, NUMBERS, NUMBERS, SPLITS), max_size=4)


def _naive(folder: Path, lines: list[tuple[str, str, str, str]]) -> list[tuple] | None:
    """What the CSV means, None if it is wrong, written without the loader's rules for parsing."""
    found: dict[str, tuple] = {}
    for path, pid, camid, split in lines:
        plain = posixpath.normpath(path) if path else ""
        good = (re.fullmatch(r" *(-1|[0-9]+) *", pid) and re.fullmatch(r" *[0-9]+ *", camid)
                and split.strip() in ("train", "query", "gallery") and plain in FILES and ".." not in path)
        key = f"{split.strip()}/{plain}"
        if not good or key in found:
            return None
        found[key] = (key, plain, int(pid), int(camid), split.strip())
    kept = sorted(row for row in found.values() if row[2] >= 0)
    return kept or None


def _check(folder: Path) -> list[tuple] | None:
    """The rows, or None for an InputError in one sentence; any other exception is the test's failure."""
    try:
        frame = read_csv(folder)
    except InputError as error:
        assert "images.csv" in str(error) and "\n" not in str(error)
        return None
    check_index(frame, "index")
    return rows(frame)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, order=st.permutations(range(4)), end=st.sampled_from(["\n", "\r\n"]))
def test_fuzzed_lines_give_the_naive_answer_or_an_error(folder, lines, order, end):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    for line in [("path", "pid", "camid", "split"), *lines]:
        writer.writerow([line[place] for place in order])
    try:
        _write(folder, text.getvalue())
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return
    assert _check(folder) == _naive(folder, lines)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=80), st.binary(max_size=40).map(lambda tail: b"path,pid,camid,split\n" + tail),
                      st.text(alphabet='path,idcmsl\n\r"0 1-.jg', max_size=60).map(str.encode)))
def test_any_bytes_give_an_index_or_an_error(folder, data):
    _write(folder, data)
    _check(folder)


def test_a_folder_is_all_its_images_and_nobody(tmp_path):
    for name in ("b.PNG", "a/1 2.jpg", "a/deep/er/still/x.tif", "é.jpeg", "notes.txt", ".hidden.jpg", ".git/y.jpg"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"x")
    (tmp_path / "else").mkdir()
    (tmp_path / "else/z.bmp").write_bytes(b"x")
    (tmp_path / "set/linked").symlink_to(tmp_path / "else")
    (tmp_path / "set/a/loop").symlink_to(tmp_path / "set")
    expected = ["a/1 2.jpg", "a/deep/er/still/x.tif", "b.PNG", "linked/z.bmp", "é.jpeg"]
    assert sorted(rows(read_folder(tmp_path / "set"))) == sorted(
        (f"gallery/{name}", name, 0, 0, "gallery") for name in expected)


def test_folders_that_cannot_be_an_index_are_named(tmp_path):
    with pytest.raises(InputError, match="none': no such folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(InputError, match="hold no image"):
        read_folder(tmp_path)
    (tmp_path / "two\nlines/below").mkdir(parents=True)
    (tmp_path / "two\nlines/below/a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="control character; rename it") as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)
