"""YAML is read as DVC reads it, by ruamel.yaml."""

import pytest
import yaml
from dvc.utils.serialize import dumps_yaml
from dvc.utils.serialize import parse_yaml as dvc_parse

from pipeline.base.errors import InputError
from pipeline.config.yaml12 import is_word, parse_yaml, read_yaml

SCALARS = [
    "1", "-1", "+3", "0", "00", "010", "0o17", "0x1F", "0b11", "1_000", "-0x1f", "09.5", "08", "1__0", "1.0", "1e5",
    "1E5", "1e-05", "1.0e-5", "5e-5", "0.00001", "1.5E3", ".5", "5.", "+.5", ".5e3", ".5e+3", "1e", "1e+", "e5",
    "1_e5", "12e03", "1:30", "1:30.5", "yes", "no", "on", "off", "y", "n", "true", "True", "TRUE", "tRue", "false",
    "null", "Null", "~", ".inf", "-.inf", "2024-01-01", "0o8", "0xg", "_1", "+_1", "a", "'a'", '"1"', "'1e5'", "1a",
    "a1",
]


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_is_what_dvc_makes_of_it(text):
    found, wanted = parse_yaml(f"a: {text}\n", "x")["a"], dvc_parse(f"a: {text}\n", "x")["a"]
    assert type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize("number", [1e-5, 5e-5, 1.0e-5, 0.00001, 1e5, 1e16, 1e22, 1e-300, 0.1, 3.0, 7, -2, 10 ** 15])
def test_numbers_as_dvc_writes_them(number):
    found = parse_yaml(dumps_yaml({"a": number}), "x")["a"]
    assert found == number and type(found) is type(number)


def test_not_a_number_reads_as_dvc_reads_it():
    assert parse_yaml("a: .nan", "x")["a"] != parse_yaml("a: .nan", "x")["a"]


@pytest.mark.parametrize("text", SCALARS)
def test_a_word_is_a_string_to_both_versions(text):
    both = {type(yaml.safe_load(text)), type(dvc_parse(f"a: {text}", "x")["a"])} if text[0] not in "'\"" else {str}
    assert is_word(text) == (both == {str})


@pytest.mark.parametrize(("text", "said"), [
    ("a: 1\na: 2\n", "line 2: the key 'a' stands there twice"), ("a: {b: 1, b: 2}", "'b' stands there twice"),
    ("a: [", "line 2"), ("a: b: c", "line 1"), ("a:\n\t- b", "line 2 begins with a tab"), ("a: *b", "alias"),
    ("a: !!python/object:a.b {}", "constructor"), ("a: !!int ''", "YAML"), ("a: !!float x", "YAML"),
    ("a: @b", "line 1"),
    ("a: 1\n=======\nb: 2", "line 2 is a mark of a conflict"), (">>>>>>> x", "line 1 is a mark"),
    ("a: " + "{b: " * 80 + "1" + "}" * 80, "nested too deeply"), ("- " * 80 + "a", "nested too deeply"),
    ("".join(" " * level + "a:\n" for level in range(80)), "nested too deeply"), ("a: &b [*b]", "alias"),
    ("a: &b {c: &d {e: *b}}", "alias"), ("a: \x07", "YAML"), ("? {a: b}\n: c", "YAML"), ("a: " + "9" * 5000, "YAML"),
])
def test_what_is_no_yaml_is_one_sentence(text, said):
    with pytest.raises(InputError, match="^file: ") as caught:
        parse_yaml(text, "file")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1, "b": 2}
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "b.yaml")


def test_aliases_that_do_not_stand_in_themselves_are_read():
    assert parse_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", "x") == {"a": {"b": 1}, "c": {"b": 1},
                                                                         "d": {"b": 1, "e": 2}}
