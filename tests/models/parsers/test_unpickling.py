"""Model-zoo pickles: what numpy wrote comes back, whatever names anything else is refused before it does anything."""

import collections
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.parsers.unpickling import read_pickle


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is refused") as caught:
        read_pickle(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_come_back(tmp_path, protocol):
    random = np.random.default_rng(0)
    content = {"model": collections.OrderedDict([
        ("float", random.normal(size=(3, 4)).astype(np.float32)),
        ("fortran", np.asfortranarray(random.normal(size=(3, 4)))),
        ("whole", np.arange(6).reshape(2, 3)), ("big", np.arange(5, dtype=">i4")), ("half", np.ones(3, np.float16)),
        ("flags", np.array([True, False])), ("empty", np.zeros((0, 4))), ("scalar", np.float64(1.5)),
        ("none", np.array(7, np.int16))]),
        "__author__": "zoo", "plain": [1, 2.5, None, True, ("a", b"\x00\xff"), {3, 4}, 2 ** 80]}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    read = read_pickle(path)
    assert read["__author__"] == "zoo" and read["plain"] == content["plain"]
    assert list(read["model"]) == list(content["model"])
    for name, value in content["model"].items():
        found = read["model"][name]
        assert isinstance(found, np.ndarray) and found.dtype == np.asarray(value).dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, value)


def test_a_pickle_of_python_2_comes_back(tmp_path):
    """As its cPickle wrote numpy.arange(3, dtype='<i2'): module and data are byte strings."""
    data = (b"cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n(I1\n"
            b"(I3\ntp7\ncnumpy\ndtype\np8\n(S'i2'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'<'\np12\nNNNI-1\nI-1\nI0\ntp13\nbI00\n"
            b"S'\\x00\\x00\\x01\\x00\\x02\\x00'\np14\ntp15\nb.")
    np.testing.assert_array_equal(pickle.loads(data, encoding="latin1"), [0, 1, 2])  # the real one reads it so
    (tmp_path / "old.pkl").write_bytes(data)
    np.testing.assert_array_equal(read_pickle(tmp_path / "old.pkl"), [0, 1, 2])


def test_malicious_pickles_are_refused_and_do_nothing(tmp_path):
    trap = tmp_path / "trap"
    calls = [Calls(os.system, f"touch {trap}"), Calls(eval, f"open({str(trap)!r}, 'w')"), Calls(exec, "pass"),
             Calls(open, str(trap), "w"), Calls(getattr, {}, "clear"), Calls(__import__, "os"),
             Calls(np.load, str(trap)), Calls(os.mkdir, str(trap)), Calls(bytes, 3), Calls(type, "T", (), {}),
             Path(trap), np.random.default_rng]
    for protocol in range(6):
        for number, call in enumerate(calls):
            refused(tmp_path / f"{number}.pkl", pickle.dumps({"model": {"a": np.zeros(2), "b": call}}, protocol))

    assert not trap.exists()


@pytest.mark.parametrize(("name", "data"), [
    ("global", b"cos\nsystem\n(S'touch trap'\ntR."),
    ("instance", b"(S'touch trap'\nios\nsystem\n."),
    ("object", b"(cos\nsystem\nS'touch trap'\no."),
    ("dotted", b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93."),
    ("through an allowed module", b"cnumpy.core.multiarray\nfromfile\n(S'trap'\ntR."),
    ("extension", b"\x80\x02\x82\x01."),
    ("persistent", b"Ptrap\n."),
    ("state of a class", b"cnumpy\nndarray\n(dS'__setstate__'\ncnumpy\ndtype\nsb."),
    ("codec", b"c_codecs\nencode\n(X\x03\x00\x00\x00abcX\x04\x00\x00\x00zliptR."),
    ("objects", pickle.dumps(np.array([{}, []], object))),
    ("records", pickle.dumps(np.zeros(2, [("a", "i4")]))),
    ("texts", pickle.dumps(np.array(["a"]))), ("dates", pickle.dumps(np.array(["2020-01-01"], "M8[D]"))),
    ("masked", pickle.dumps(np.ma.masked_array([1], [True]))),
    ("no content", b"cnumpy\nndarray\n)R."),
    ("no shape", b"cnumpy\nndarray\n)R(I1\nI3\ncnumpy\ndtype\n(S'i2'\ntRI00\nS'abcdef'\ntb."),
    ("short data", b"cnumpy\nndarray\n)R(I1\n(I9\ntcnumpy\ndtype\n(S'i2'\ntRI00\nS'abcdef'\ntb."),
    ("negative", b"cnumpy\nndarray\n)R(I1\n(I-1\nI-3\ntcnumpy\ndtype\n(S'i2'\ntRI00\nS'abcdef'\ntb."),
    ("dtype alone", b"cnumpy\ndtype\n(S'f4'\ntR."), ("class alone", b"cnumpy\nndarray\n."),
    ("empty", b""), ("text", b"hello"),
    ("cut", pickle.dumps({"model": np.zeros(100)})[:-60])], ids=lambda value: value if isinstance(value, str) else "")
def test_strange_pickles_are_refused(tmp_path, monkeypatch, name, data):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path / "strange.pkl", data)
    assert not Path("trap").exists()


def test_a_list_in_itself_and_a_huge_memo_do_not_hang(tmp_path):
    circle: list = []
    circle.append(circle)
    refused(tmp_path / "circle.pkl", pickle.dumps(circle))
    laughs: list = []
    for _ in range(60):
        laughs = [laughs, laughs]
    (tmp_path / "laughs.pkl").write_bytes(pickle.dumps(laughs))
    depth, found = 0, read_pickle(tmp_path / "laughs.pkl")
    while found:
        depth, found = depth + 1, found[1]
    assert depth == 60
    memo = b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b"."  # the unpickler in C would want 64 GB for it
    (tmp_path / "memo.pkl").write_bytes(memo)
    assert read_pickle(tmp_path / "memo.pkl") == 1
    refused(tmp_path / "long.pkl", b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.pkl: cannot be read"):
        read_pickle(tmp_path / "none.pkl")


WHOLE = pickle.dumps({"model": collections.OrderedDict(a=np.arange(4.0), b=np.ones((2, 2), np.float32)),
                      "n": [1, "x"]}, 2)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_pickles_give_plain_things_or_one_sentence(tmp_path_factory, changes):
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(data)
    try:
        found = read_pickle(path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        plain(found)


def plain(value) -> None:
    if isinstance(value, dict | list | tuple | set | frozenset):
        assert type(value) in (dict, list, tuple, set, frozenset)
        for item in ([*value, *value.values()] if isinstance(value, dict) else value):
            plain(item)
    else:
        assert value is None or type(value) in (bool, int, float, complex, str, bytes, bytearray, np.ndarray)


def test_nothing_is_imported_by_name(tmp_path, monkeypatch):
    """Naming a module does not import it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil_module.py").write_text("open('trap', 'w')")
    monkeypatch.chdir(tmp_path)
    refused(tmp_path / "import.pkl", b"cevil_module\nthing\n.")
    assert not Path("trap").exists()
    with pytest.raises(AttributeError):  # the real one does import it
        pickle.Unpickler(io.BytesIO(b"cevil_module\nthing\n.")).load()
    assert Path("trap").exists()
