"""Names are what DVC takes as a key, and what is read back out of its lock file."""

import pytest
from dvc.utils.serialize import dumps_yaml, parse_yaml

from pipeline.base.errors import InputError
from pipeline.config.names import LONGEST, check_name, known_name, nearest


@pytest.mark.parametrize("name", ["a", "sorn", "dsa-2", "a_b-C9", "a" * LONGEST])
def test_a_name_is_taken_and_read_back_by_dvc(name):
    assert check_name(name, "runs") == name
    key = f"embed_three@{name}-on-{name}"
    lock = {"stages": {key: {"cmd": f"python -m stages.embed {name}", "params": {"params.yaml": {f"runs.{name}": 1}}}}}
    assert parse_yaml(dumps_yaml(lock), "dvc.lock") == lock


@pytest.mark.parametrize("name", [
    "", " a", "a b", "a.b", "a@b", "a/b", "../a", "a:b", "2", "2a", "-a", "_a", "a" * (LONGEST + 1), "ä", "a\n", "${a}",
    2, 2.5, True, None, ["a"], ("a",)])
def test_what_is_no_name(name):
    with pytest.raises(InputError, match="^runs: .* cannot be a name; take letters, digits, - and _, a letter first"):
        check_name(name, "runs")


def test_unknown_names_list_the_nearest_and_the_choices():
    with pytest.raises(InputError, match=r"^a: 'sron' is no run of .* \(did you mean 'sorn'\?\); it has: dsa, sorn$"):
        known_name("sron", ["dsa", "sorn"], "a", "run")
    with pytest.raises(InputError, match="it has: none$"):
        known_name("sron", [], "a", "run")
    assert nearest("x", ["sorn"]) == "" and "'sgam'" in nearest("sgan", ["sgam", "sorn"])
