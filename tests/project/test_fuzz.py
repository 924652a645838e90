"""Readers of files from outside, on damaged and on odd ones: a right answer or one sentence that names the file."""

import csv
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import FILES
from benchmarks.fuzz import READERS as FUZZED
from pipeline.base.errors import InputError
from pipeline.base.images import read_image
from pipeline.config.loader import load_params
from pipeline.datasets.cuhk import read_cuhk03_labeled
from pipeline.datasets.index import read_index
from pipeline.datasets.market_like import read_market
from pipeline.parsing.label_map import LabelMap, read_label_map
from pipeline.parsing.published_sets import read_ccp
from pipeline.retrieval.external_features import read_external
from tests.datasets.test_cuhk import CONFIG, _save_split
from tests.helpers.alarm import within
from tests.stages.test_score import arrays, save_mat

SECONDS = 20  # a reader takes milliseconds
FEW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHANGES = st.tuples(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
                    st.sampled_from([0, 0, 1, 7, 100, 1000]))


def changed(data: bytes, changes: tuple[list[tuple[int, int]], int]) -> bytes:
    """Some bytes replaced, some cut off at the end."""
    result = bytearray(data)
    for place, value in changes[0]:
        result[place % len(result)] = value
    return bytes(result[:len(result) - changes[1]])


def sentence(error: InputError, *names: str) -> None:
    assert any(name in str(error) for name in names) and "\n" not in str(error), str(error)


@pytest.mark.parametrize("cases", [30, pytest.param(600, marks=pytest.mark.slow)])
def test_damaged_h5_files(tmp_path, cases):
    """Every reader of HDF5, in a process of its own: the library may crash where Python raises."""
    script = Path(__file__).parents[1] / "helpers" / "damaged_h5.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path), "all", "0", str(cases)], capture_output=True,
                          text=True, cwd=script.parents[2], timeout=1200, check=False,
                          env=os.environ | {"PYTHONPATH": f"{script.parents[2]}:{script.parent}"})
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split(" ", 3) for line in done.stdout.splitlines()]
    found = Counter((reader, result) for reader, result, *_ in lines)
    assert len(lines) == 10 * cases
    assert min(found[reader, "refused"] for reader, *_ in lines if reader != "append") > 0
    # A cache has checksums over everything: changed bytes never give other rows, and a parse on top makes them good.
    changes = [(reader, result) for reader, result, kind, _ in lines if kind in ("flip", "set", "zero", "cut")]
    assert Counter(changes)["cache", "other"] == 0 < Counter(changes)["cache", "refused"]
    assert {result for reader, result in changes if reader == "append"} == {"right"}


@pytest.mark.parametrize("cases", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_damaged_files_of_every_other_format(tmp_path, cases):
    """The quick part of `python -m benchmarks.fuzz`: a right answer or one sentence, whatever the damage."""
    script = Path(__file__).parents[1] / "helpers" / "damaged_files.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path), "all", "1", str(cases)], capture_output=True,
                          text=True, cwd=script.parents[2], timeout=1200, check=False,
                          env=os.environ | {"PYTHONPATH": f"{script.parents[2]}:{script.parent}"})
    assert done.returncode == 0, done.stderr[-3000:]
    found = Counter(tuple(line.split(" ", 2)[:2]) for line in done.stdout.splitlines())
    readers = FUZZED[FILES]
    assert {reader: found[reader, "right"] + found[reader, "refused"] for reader in readers} == \
        dict.fromkeys(readers, cases)
    assert all(found[reader, "refused"] for reader in readers)


CELLS = st.one_of(st.sampled_from(["a", "query/1 é.jpg", "1", "2", "-1", "1.5", "", "nan", "NA", "inf", "True", "query",
                                   "gallery", "train", "9" * 20, "-" + "9" * 20, "18446744073709551615", "0x1", "1e400",
                                   "a\nb", "a\0b", '"', '"a', "a\"b", ",", " 1", "\u2028", "\ufeff", "../x"]),
                  st.text(max_size=3))
HEADER = st.one_of(st.just(["image", "path", "pid", "camid", "split"]),
                   st.permutations(["image", "path", "pid", "camid", "split", "trial"]),
                   st.lists(st.sampled_from(["image", "path", "pid", "camid", "split", "trial", "occlusion", ""]),
                            max_size=8))
GOOD = st.builds(lambda number, pid, split: [f"{split}/{number}.jpg", f"{number}.jpg", str(pid), "1", split],
                 st.integers(0, 5), st.integers(0, 9), st.sampled_from(["query", "gallery", "train"]))


def plain_index(data: bytes) -> list[dict[str, str]]:
    """What the csv module reads."""
    text = data.decode("utf-8-sig")
    return [row for row in csv.DictReader(io.StringIO(text, newline="")) if any(row.values())]


def check_index_file(path: Path) -> None:
    """Read as plain CSV, or refused."""
    try:
        with within(SECONDS):
            frame = read_index(path)
    except InputError as error:
        sentence(error, path.name)
        return
    expected = plain_index(path.read_bytes())
    for column in ("image", "path", "split"):
        assert frame[column].tolist() == [row[column] for row in expected]
    for column in {"pid", "camid", "trial"} & set(frame):
        assert frame[column].tolist() == [int(row[column]) for row in expected]


@FEW
@given(header=HEADER, rows=st.lists(GOOD | st.lists(CELLS, max_size=7), max_size=4),
       end=st.sampled_from(["\n", "\r\n"]), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
@example(["image", "path", "pid", "camid", "split"], [["a", "a", "1", "2", "query", ""]], "\n", csv.QUOTE_MINIMAL)
@example(["image", "path", "pid", "camid", "split"], [["a", "a", "9" * 19, "2", "query"]], "\n", csv.QUOTE_MINIMAL)
@example(["image", "path", "pid", "camid", "split"], [["a", "a", "1", "2"], ["b", "b", "1", "2", "x"]], "\n",
         csv.QUOTE_MINIMAL)
@example(["image", "path", "pid", "camid", "split"], [["a\nb", "a", "1", "2", "query"]], "\n", csv.QUOTE_MINIMAL)
@example(["image", "path", "pid", "camid", "split", "trial"], [["a", "a", "1", "2", "query", "x"]], "\n",
         csv.QUOTE_MINIMAL)
def test_any_table_is_an_index_as_plain_csv_reads_it_or_refused(tmp_path, header, rows, end, quoting):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=quoting, escapechar="\\")
    writer.writerows([header, *rows])
    (tmp_path / "index.csv").write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    check_index_file(tmp_path / "index.csv")


INDEX = b"image,path,pid,camid,split\nquery/a.jpg,a.jpg,1,2,query\ngallery/b.jpg,b.jpg,2,1,gallery\n"


@FEW
@given(changes=CHANGES)
def test_a_damaged_index_is_read_as_plain_csv_reads_it_or_refused(tmp_path, changes):
    (tmp_path / "index.csv").write_bytes(changed(INDEX, changes))
    check_index_file(tmp_path / "index.csv")


@pytest.fixture(scope="module")
def features() -> dict[str, bytes]:
    """Right files of features, plain and compressed."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/plain.npz", **arrays())
        np.savez_compressed(f"{folder}/small.npz", **arrays())
        save_mat(f"{folder}/plain.mat", arrays())
        scipy.io.savemat(f"{folder}/small.mat", scipy.io.loadmat(f"{folder}/plain.mat"), do_compression=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@FEW
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["plain.npz", "small.npz", "plain.mat", "small.mat"])
@given(changes=CHANGES, early=st.booleans())
def test_damaged_features_are_two_sides_or_refused(tmp_path, features, name, changes, early):
    """early: within the first bytes, where headers are."""
    data = features[name]
    if early:
        changes = [(place % 400, value) for place, value in changes[0]], changes[1]
    (tmp_path / name).write_bytes(changed(data, changes))
    check_features(tmp_path / name)


def check_features(path: Path) -> None:
    try:
        with within(SECONDS):
            found = read_external(path, distance="cosine", reduction="mean")
    except InputError as error:
        sentence(error, path.name)
        return
    for side in (found.query, found.gallery):
        assert side.features.shape == (len(side.pid), sum(found.matching.sizes)) and np.isfinite(side.features).all()
        assert side.pid.dtype == side.camid.dtype == np.int64 and side.camid.shape == side.pid.shape
        assert ((side.visibility >= 0) & (side.visibility <= 1)).all()


VALUES = st.one_of(st.none(), st.integers(-2**70, 2**70), st.floats(), st.text(max_size=3), st.binary(max_size=3),
                   st.sampled_from([np.zeros((0, 1)), np.zeros((12, 0)), np.array(3), np.full(12, 1e300),
                                    np.full(12, 2**63, np.uint64), np.full(12, np.nan), np.ones((12, 1, 1)),
                                    np.full((12, 6), 1 + 2j), np.array([None] * 12), np.zeros(12, "M8[s]"),
                                    np.zeros(12, [("a", int)]), np.full((12, 6), np.finfo(np.longdouble).max)]))


@FEW
@pytest.mark.filterwarnings("ignore")
@given(name=st.sampled_from(["query_features", "query_pid", "gallery_camid", "sizes", "query_visibility",
                             "query_occlusion", "query_name"]), value=VALUES)
@example("query_visibility", np.zeros((0, 1)))
@example("query_pid", np.full(12, 1e300))
@example("query_pid", np.full(12, 2**63, np.uint64))
def test_features_with_an_odd_array_are_refused_or_read(tmp_path, name, value):
    np.savez(tmp_path / "odd.npz", **arrays() | {name: value})
    check_features(tmp_path / "odd.npz")


def test_what_else_stands_in_a_zip_is_refused(tmp_path):
    """Members that are no arrays, methods zipfile lacks, a password: none is numpy's own error."""
    for name, method in (("text", zipfile.ZIP_STORED), ("bz2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w", method) as file:
            file.writestr("query_features.npy", b"no array")
        with pytest.raises(InputError, match=rf"{name}\.npz"):
            read_external(tmp_path / f"{name}.npz", distance="cosine", reduction="mean")
    data = bytearray((tmp_path / "text.npz").read_bytes())
    for start in (data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8):
        data[start] |= 1  # "encrypted"
    (tmp_path / "secret.npz").write_bytes(data)
    with pytest.raises(InputError, match=r"secret\.npz"):
        read_external(tmp_path / "secret.npz", distance="cosine", reduction="mean")


@FEW
@pytest.mark.filterwarnings("ignore")
@given(changes=CHANGES)
def test_damaged_splits_of_cuhk03_are_rows_or_refused(tmp_path, changes):
    config = tmp_path / CONFIG.format("labeled")
    if not config.exists():
        _save_split(tmp_path / "whole.mat")
        (tmp_path / "images_labeled").mkdir()
        for name in (f"{pair}_00{person}_{camera}_{number:02d}.png" for pair in (1, 5) for person in (1, 2)
                     for camera in (1, 2) for number in range(1, 11)):
            (tmp_path / "images_labeled" / name).touch()
    config.write_bytes(changed((tmp_path / "whole.mat").read_bytes(), changes))
    try:
        with within(SECONDS):
            frame = read_cuhk03_labeled(tmp_path)
    except InputError as error:
        sentence(error, config.name)
        return
    assert (frame["image"] == frame["split"] + "/" + frame["path"].str.removeprefix("images_labeled/")).all()


@FEW
@pytest.mark.filterwarnings("ignore")
@given(changes=CHANGES)
def test_damaged_annotations_of_ccp_are_labels_or_refused(tmp_path, changes):
    whole, path = tmp_path / "whole.mat", tmp_path / "0001.mat"
    if not whole.exists():
        scipy.io.savemat(whole, {"groundtruth": np.arange(48, dtype=np.uint8).reshape(8, 6)}, do_compression=True)
    path.write_bytes(changed(whole.read_bytes(), changes))
    try:
        with within(SECONDS):
            found = read_ccp(path)
    except InputError as error:
        sentence(error, path.name)
        return
    assert found.dtype == np.uint8 and found.ndim == 2 and found.size


SCALARS = st.one_of(st.text(max_size=4), st.integers(), st.none(), st.booleans(), st.sampled_from([
    "background", "hat", "skin", "torso", "lip20", "densepose24"]))
TREES = st.fixed_dictionaries({}, optional={
    "taxonomy": SCALARS, "labels": SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=3), max_size=4),
    "void": SCALARS | st.lists(st.integers(-1, 300), max_size=3), "other": SCALARS})
TAGS = st.builds(lambda tag, value: f"taxonomy: !!{tag} {value}\nlabels: []\n".encode(), st.sampled_from(
    ["int", "float", "bool", "timestamp", "binary", "set", "omap", "pairs", "null", "str", "map", "seq", "python/x"]),
    st.sampled_from(["''", "x", "[]", "{}", "1:x", "0x", "9999-99-99", "'='", "[[a]]", "{a: b}"]))
ODD = [b"taxonomy: !!int ''", b"a: !!float ''", b"a: !!timestamp x", b"a: !!bool x", b"&a [*a]", b"a: &a {b: *a}",
       b"? [a]\n: b", b"? {a: b}\n: c", b"[" * 400, b"a: 1\na: 2", b"<<: 3", b"a: !!int 0x", b"%YAML 9.9\n---\na",
       b"\x00", b"a: 9" + b"9" * 5000, b"labels: &a [*a]\ntaxonomy: lip20"]


@FEW
@given(data=st.one_of(TREES.map(lambda tree: yaml.safe_dump(tree).encode()), TAGS, st.sampled_from(ODD)))
def test_any_yaml_is_a_label_map_or_refused(tmp_path, data):
    path = tmp_path / "map.yaml"
    path.write_bytes(data)
    try:
        with within(SECONDS):
            found = read_label_map(str(path))
    except InputError as error:
        sentence(error, "map.yaml")
        return
    assert isinstance(found, LabelMap)
    assert list(found.names) == [pair[0] for pair in yaml.safe_load(data)["labels"]]


@pytest.mark.parametrize("data", ODD)
def test_yaml_that_makes_its_reader_stumble_is_no_parameter_file(tmp_path, data):
    (tmp_path / "params.yaml").write_bytes(data)
    with pytest.raises(InputError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


NAMES = st.one_of(
    st.builds("{}_c{}s1_{}.{}".format, st.sampled_from(["0001", "-1", "0", "x", "", "1" * 18, "1" * 19, "+1", "٣"]),
              st.sampled_from(["1", "6", "", "x", "1" * 19, "٣", "-1"]), st.sampled_from(["000001_00", "", " ", "é"]),
              st.sampled_from(["jpg", "JPG", "png", "txt", "jpg.txt", "jpg~", ""])).map(str.encode),
    st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=6)).filter(
        lambda name: 0 < len(name) < 200 and not {b"/"[0], 0} & set(name) and name not in (b".", b".."))


@FEW
@given(names=st.lists(st.tuples(st.sampled_from([b"query", b"bounding_box_test"]), NAMES), max_size=4, unique=True))
def test_any_names_in_the_market_layout(names):
    """Against a reading of the layout's words: a number, _c, a number; -1 left out; other endings left alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/query")
        os.mkdir(f"{folder}/bounding_box_test")
        for place, name in names:
            Path(os.fsdecode(os.fsencode(folder) + b"/" + place + b"/" + name)).touch()
        expected, good = [], True
        for place, name in names:
            if name.startswith(b".") or not re.search(rb"[^.]\.(?i:jpe?g|png|bmp|tiff?)$", name, re.DOTALL):
                continue
            match = re.match(rb"(-1|[0-9]{1,18})_c([0-9]{1,18})([^0-9]|$)", name)
            try:
                good = good and match is not None and not re.search("[\0-\x1f\x7f-\x9f]", name.decode())
            except UnicodeDecodeError:
                good = False
            if good and match and match[1] != b"-1":
                expected.append((name.decode(), int(match[1]), int(match[2]), place == b"query"))
        try:
            with within(SECONDS):
                frame = read_market(folder)
        except InputError as error:
            sentence(error, folder)
            assert not good or not expected
            return
        found = zip(frame["path"].str.split("/", n=1).str[1], frame["pid"], frame["camid"], frame["split"] == "query",
                    strict=True)
        assert good and sorted(found) == sorted(expected)


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """The same picture in every format that is read."""
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 4, 3)).astype(np.uint8), (32, 48))
    return {ending: cv2.imencode(f".{ending}", picture)[1].tobytes() for ending in ("jpg", "png", "bmp", "tif")}


@FEW
@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "tif"])
@given(changes=CHANGES, early=st.booleans())
def test_damaged_pictures_are_pictures_or_refused(tmp_path, pictures, ending, changes, early):
    if early:
        changes = [(place % 60, value) for place, value in changes[0]], changes[1]
    path = tmp_path / f"picture.{ending}"
    path.write_bytes(changed(pictures[ending], changes))
    try:
        with within(SECONDS):
            found = read_image(path)
    except InputError as error:
        sentence(error, path.name)
        return
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.size
