import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.datasets.index import COLUMNS, read_index, write_index

ROWS = [("query/b.jpg", "query/b.jpg", 2, 1, "query"), ("gallery/a.jpg", "test/a.jpg", 0, 2, "gallery"),
        ("train/c.jpg", "train/c.jpg", 5, 1, "train")]


def _frame(rows=ROWS) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def test_round_trip_is_sorted_and_the_same_bytes_in_any_order(tmp_path):
    write_index(_frame(), tmp_path / "one.csv")
    write_index(_frame(ROWS[::-1]), tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    read = read_index(tmp_path / "one.csv")
    assert read["image"].tolist() == ["gallery/a.jpg", "query/b.jpg", "train/c.jpg"]
    assert read["pid"].tolist() == [0, 2, 5]


def test_a_name_that_looks_like_a_number_or_nothing_stays_a_name(tmp_path):
    write_index(_frame([("001", "001", 1, 1, "query"), ("NA", "NA", 1, 2, "gallery")]), tmp_path / "i.csv")
    assert read_index(tmp_path / "i.csv")["image"].tolist() == ["001", "NA"]


@pytest.mark.parametrize(("rows", "message"), [
    ([], "i.csv': the data set has no images"),
    ([ROWS[0], ("query/b.jpg", "other/b.jpg", 3, 1, "query")],
     r"two images have the key 'query/b.jpg' \('query/b.jpg' and 'other/b.jpg'\); rename one"),
    ([("a", "a", 1, 1, "test")], r"unknown split 'test'; a split is one of \['train', 'query', 'gallery'\]"),
    ([("a", "a", 1.5, 1, "query")], "column 'pid' must hold whole numbers only"),
])
def test_what_is_no_index_is_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        write_index(_frame(rows), tmp_path / "i.csv")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.csv': no such index; make it with"):
        read_index(tmp_path / "nowhere.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00image,path\n\x80")
    with pytest.raises(InputError, match="bytes.csv': is no readable index CSV"):
        read_index(tmp_path / "bytes.csv")
    (tmp_path / "short.csv").write_text("image,path,pid\na,a,1\n")
    with pytest.raises(InputError, match="lacks the column 'camid'"):
        read_index(tmp_path / "short.csv")
