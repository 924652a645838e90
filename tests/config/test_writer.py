"""The text of params.yaml and plan.yaml: read back the same by us and by DVC, each comment once, edits found."""

import collections
import re
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml
from dvc.utils.serialize import parse_yaml as dvc_parse

from pipeline.base.errors import InputError
from pipeline.config.compose import compose
from pipeline.config.writer import changes, composed_from, edits, fingerprint, params_text, plan_text, scalar
from pipeline.config.yaml12 import parse_yaml
from tests.config.conftest import ROOT, experiments


@pytest.fixture(scope="module", autouse=True)
def at_root():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.mark.parametrize("name", experiments())
def test_what_is_written_reads_back_the_same_by_us_and_by_dvc(name):
    composed = compose(name)
    for tree, text in ((composed.params, params_text(composed.params, name, None)),
                       (composed.plan, plan_text(composed.plan, name, None))):
        assert parse_yaml(text, "x") == dvc_parse(text, "x") == tree
        assert "&" not in text and "<<:" not in text, "`dvc exp run -S` cannot change what is shared"
        assert max(map(len, text.splitlines())) <= 200
        assert dvc_parse(dumps_yaml(tree), "dvc.lock") == tree, "DVC's lock file repeats it"


@pytest.mark.parametrize("name", experiments())
def test_each_comment_stands_once_where_its_key_stands_first(name):
    """Of lines `key: ...  # comment`, no (section, key, comment) twice; each key has a comment at its first place."""
    text = params_text(compose(name).params, name, None)
    seen: dict[tuple[str, ...], int] = collections.Counter()
    path: list[tuple[int, str]] = []
    for line in text.splitlines()[3:]:
        found = re.match(r"( *)([\w-]+):(?: [^#]*?)?(?:  # (.*))?$", line)
        if not found:
            continue
        path = [*(item for item in path if item[0] < len(found[1])), (len(found[1]), found[2])]
        if found[3]:
            keys = [key for _, key in path]
            seen[(keys[0], *keys[2:], found[3])] += 1
    assert all(number == 1 for number in seen.values()), [key for key, number in seen.items() if number > 1]
    if name == "default":
        commented = {key[1:-1] for key in seen if key[0] == "runs"}
        for keys in (("seed",), ("optimizer", "lr"), ("augment", "fill"), ("model", "lambda_spc"),
                     ("model", "dsag_width")):
            assert keys in commented, keys
        assert len(text.splitlines()) <= 300


@pytest.mark.parametrize("value", [
    "sorn", "", " ", "no", "on", "yes", "true", "null", "~", "1", "1e5", "0o17", "1_0", "1:30", ".5", "2024-01-01", "-",
    "- a", "a: b", "a #b", "#", "a\nb", "a\tb", "'a'", '"', "\\", "{", "[a]", "*a", "&a", "!a", "%a", "@a", "a, b",
    "ä ß", "\x7f\x85\u2028", "人 🚶", "=", "<<", "a" * 300, " a ", "../..", "w/o SPC (Loss)", "data/raw/x y", True,
    False, 0, -3, 10 ** 15, 0.0, 1e-05, 1.5e-05, 1e22, 0.1, [], ["no", 1, "a: b"], {},
    {"no": "yes"}, {"a": {"b": [1.0, "x"]}}])
def test_a_value_reads_back_as_what_it_was(value):
    for text in (f"a: {scalar(value)}\n", f"{{b: [{scalar(value)}], a: {scalar(value)}}}\n"):
        for read in (parse_yaml(text, "x")["a"], dvc_parse(text, "x")["a"]):
            assert read == value and type(read) is type(value)


def test_first_lines():
    kept = ("market1501", "partial-reid")
    tree = compose("default").params
    for chosen in (None, (), kept):
        path = Path("/tmp") / f"params-{len(chosen or '')}.yaml"
        path.write_text(params_text(tree, "paper-sorn", chosen))
        try:
            assert composed_from(path) == ("paper-sorn", chosen, fingerprint(tree))
        finally:
            path.unlink()


def test_hand_edits_are_named(tmp_path):
    composed = compose("default")
    path = tmp_path / "params.yaml"
    text = params_text(composed.params, "default", None)
    path.write_text(text)
    assert edits(path, composed.params) == []
    path.write_text(text.replace("lambda_spc: 0.5", "lambda_spc: 0.25").replace("threads: 2  #", "threads: 3  #", 1))
    assert edits(path, composed.params) == ["threads: 2 -> 3", "runs.sorn.model.lambda_spc: 0.5 -> 0.25"]
    path.write_text(text + "more: [1]\n")
    assert edits(path, composed.params) == ["more: absent -> [1]"]
    path.write_text(text.partition("\nruns:")[0] + "\n")
    assert [edit.partition(":")[0] for edit in edits(path, composed.params)] == ["runs", "results"]
    path.write_text(text.replace("\n", "\n# mine\n", 1))
    assert edits(path, composed.params) == [], "a comment is no edit"
    path.write_text(text.partition("\n")[2])
    with pytest.raises(InputError, match="the first line does not name the profile it was composed from; `git"):
        edits(path, composed.params)


def test_of_many_changes_the_first_are_named():
    assert changes({str(key): 0 for key in range(9)}, {str(key): 1 for key in range(9)}) == [
        *(f"{key}: 0 -> 1" for key in range(6)), "3 more"]
    assert changes({"a": 1}, [2]) == ["the file: {a: 1} -> [2]"]
    assert changes({"a": "x" * 300}, {}) == [f"a: {'x' * 80} ... -> absent"]
