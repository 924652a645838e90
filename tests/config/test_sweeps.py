"""Sweeps of the papers: which values they have, and what each value of one trains and how it is matched."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.compose import Composed, compose
from pipeline.config.paper_rows import Sweep, read_sweeps
from tests.helpers.bare_params import by_data_set

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ("esa", "sgsfa", "sgam", "sorn")
Entry = dict[str, Any]

# sweep, paper, figure -> best, and values that must stand there, in the papers' own sentences
PRINTED = {
    ("esa-lambda", "esa", "5"): ([0.1], {0.01, 0.1}),  # "small (for example 0.01)"; "best lambda ... is 0.1"
    ("esa-tau", "esa", "6"): ([], {0.1, 0.9}),  # "we increase tau from 0.1 to 0.9"
    ("esa-tau-gated", "esa", "6"): ([], {0.1, 0.9}),  # "In Eq.2 and Eq.3, tau is the threshold"
    # "from 0 to 0.2"; "0.8 is best choice"; "when lambda is 1", "is 0"
    ("sgsfa-lambda", "sgsfa", "6"): ([0.8], {0, 0.2, 0.8, 1}),
    # "When lambda = 0.2"; "using only global features or local features"
    ("sgam-lambda", "sgam", "6"): ([0.2], {0, 0.2, 1}),
    ("sorn-tau", "sorn", "8 (a)"): ([0.15], {0.15}),  # "When tau = 0.15"
    ("sorn-p", "sorn", "8 (b)"): ([3], {3}),  # "when the number of patches is set to 3"
    ("sorn-n", "sorn", "8 (c)"): ([3], {1, 2, 3, 4}),   # "change N from 1 to 4. When the value of N is set to 3"
}


@pytest.fixture(scope="module", autouse=True)
def project():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def trees(project) -> dict[str, Entry]:
    """Of each paper's experiment and those that it stands on, together: runs, results, embeds; and its own sweeps."""
    return {paper: together(f"sweeps-{paper}") for paper in PAPERS}


def together(name: str) -> Entry:
    return _together(compose(name))


def _together(made: Composed) -> Entry:
    tree: Entry = {"runs": {}, "results": {}, "embed": {}}
    for base in made.bases.values():
        under = _together(base)
        for section in tree:
            tree[section] |= under[section]

    plan = made.plan["plan"]
    for section in ("runs", "results"):
        tree[section] |= made.params[section]
    tree["embed"] |= by_data_set(plan)
    return tree | {"sweep": plan["sweep"]}


def flat(tree: Any, name: str) -> Entry:
    if not isinstance(tree, dict):
        return {name: tree}
    return {key: value for part, inner in tree.items() for key, value in flat(inner, f"{name}.{part}").items()}


def sweeps_of(tree: Entry, sweep: Sweep) -> list[Entry]:
    return [entry for key, entry in tree["sweep"].items() if key.startswith(f"{sweep.name}-on-")]


def settings(tree: Entry, entry: Entry, result: str) -> Entry:
    """All that a result rests on, key by key, and its run."""
    embedded = tree["embed"][f"{result}-on-{entry['dataset']}"]
    run = tree["runs"][embedded["run"]]
    assert (embedded["dataset"], run["train_on"]) == (entry["dataset"], entry["trained_on"])
    return flat({**run, "match": tree["results"][result]["match"]}, "about") | {"run": embedded["run"]}


def test_the_sweeps_are_those_of_the_papers():
    sweeps = {(sweep.name, sweep.paper, sweep.figure): sweep for sweep in read_sweeps()}
    assert sweeps.keys() == PRINTED.keys()
    for key, (best, values) in PRINTED.items():
        sweep = sweeps[key]
        assert sweep.best == best and values <= set(sweep.values) and set(sweep.printed) <= values
        assert sweep.values == sorted(set(sweep.values)) and {sweep.own, *best} <= set(sweep.values)


def test_each_value_changes_its_field_alone_and_the_own_one_nothing(trees):
    """Run and matching of each value, compared key by key with the full model's."""
    count = 0
    for sweep in read_sweeps():
        tree = trees[sweep.paper]
        for entry in sweeps_of(tree, sweep):
            full = settings(tree, entry, entry["results"][entry["values"].index(sweep.own)])
            assert full["run"] == sweep.variant + ("" if entry["trained_on"] == "synth-occluded" else "-synth-holistic")
            assert full[f"about.{sweep.field}"] == sweep.own
            for value, result in zip(entry["values"], entry["results"], strict=True):
                own = settings(tree, entry, result)
                changed = {name for name in own if own[name] != full[name]} - {"run"}
                allowed = {f"about.{sweep.field}"} | flat(sweep.at.get(value, {}), "about").keys() - {"about"}
                assert own[f"about.{sweep.field}"] == value
                assert changed == (set() if value == sweep.own else allowed), (result, changed)
                # a training per value, but for what acts at test time alone: SORN's tau
                assert (own["run"] == full["run"]) == (value == sweep.own or sweep.name == "sorn-tau")
                count += 1
    assert count == 6 + 2 * 9 + 6 + 7 + 2 * (7 + 5 + 4)


def test_sgam_s_ends_are_matched_by_what_was_trained(trees):
    results = trees["sgam"]["results"]
    assert results["sgam-lambda-0"]["match"]["features"] == "local"
    assert results["sgam-lambda-1"]["match"]["features"] == "global"


def test_sgsfa_s_ends_are_matched_by_the_branch_that_was_trained(trees):
    """5.2: at lambda 1 "only the semantic feature is considered", at 0 "only spatial features take effect"."""
    results = trees["sgsfa"]["results"]
    assert results["sgsfa-lambda-0"]["match"]["features"] == "spatial"
    assert results["sgsfa-lambda-1"]["match"]["features"] == "semantic"
    assert {results[f"sgsfa-lambda-0_{digit}"]["match"]["features"] for digit in (2, 4, 6)} == {"parts"}


def test_no_name_holds_a_dot(trees):
    """In DVC's names of parameters a dot starts a level: `runs.esa-lambda-0.01` would track nothing."""
    assert not [key for tree in trees.values() for section in tree.values() for key in section if "." in key]
