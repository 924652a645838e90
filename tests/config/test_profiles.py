"""Profiles: what includes, `like` and null make of each other, and what their heads say."""

import re
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.config.profiles import entries, like, load_profile, merge
from tests.config.conftest import ROOT

NAMES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def test_another_model_replaces_one_and_the_same_is_merged():
    base = {"model": {"name": "esa", "tau": 0.5, "margin": 0.3}}
    assert merge(base, {"model": {"tau": 0.7}}) == {"model": {"name": "esa", "tau": 0.7, "margin": 0.3}}
    assert merge(base, {"model": {"name": "esa", "tau": 0.7}})["model"]["margin"] == 0.3
    assert merge(base, {"model": {"name": "pcb", "width": 8}}) == {"model": {"name": "pcb", "width": 8}}
    assert merge({"model": {"tau": 0.5}}, {"model": {"name": "esa"}})["model"] == {"tau": 0.5, "name": "esa"}
    assert merge({}, {"model": {"name": "esa"}}) == {"model": {"name": "esa"}}
    assert base == {"model": {"name": "esa", "tau": 0.5, "margin": 0.3}}, "what is merged stays as it was"


def test_like_copies_recipes_through_recipes_and_null_takes_out():
    recipes = {"run": {"seed": 0, "workers": 1, "augment": {"pad": 2, "flip": 0.5}},
               "small": {"like": "run", "augment": {"pad": 0}}}
    assert like({"like": "small", "seed": 3}, recipes, "runs.a") == {
        "seed": 3, "workers": 1, "augment": {"pad": 0, "flip": 0.5}}
    profile = {"recipes": recipes, "runs": {"a": {"like": "small", "workers": None, "augment": {"flip": None}}}}
    assert entries(profile, "runs")["a"] == {"seed": 0, "augment": {"pad": 0}}
    assert recipes["run"]["augment"] == {"pad": 2, "flip": 0.5}, "a recipe stays as it was"


def test_what_is_included_is_gone_over_in_order(project):
    Path("profiles/a.yaml").write_text("threads: 1\non: [x]\nruns: {a: {seed: 1, batch: 2}, b: {seed: 1}, c: {}}\n")
    Path("profiles/b.yaml").write_text("threads: 2\nruns: {a: {seed: 2}}\n")
    Path("profiles/c.yaml").write_text("include: [a, b]\nruns: {a: {batch: null, workers: 3}, b: null}\n")
    assert load_profile("c") == {"threads": 2, "runs": {"a": {"seed": 2, "workers": 3}, "c": {}}}


def test_one_profile_may_be_included_twice_but_not_in_itself(project):
    Path("profiles/a.yaml").write_text("include: [recipes, small]\n")
    assert load_profile("a") == load_profile("small")
    Path("profiles/b.yaml").write_text("include: [c]\n")
    Path("profiles/c.yaml").write_text("include: [b]\n")
    with pytest.raises(InputError, match=r"'profiles/b.yaml': includes itself \(b -> c -> b\)"):
        load_profile("b")


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_begins_with_what_it_is_and_names_only_what_is_there(name):
    """Its head is a comment in sentences; profiles, commands, documents and folders that it names exist."""
    text = (ROOT / f"profiles/{name}.yaml").read_text()
    head = " ".join(line.lstrip("# ") for line in text.split("\ninclude:")[0].split("\n") if line.startswith("#"))
    assert head[:1].isupper() and head.endswith((".", ").")), head
    for other in re.findall(r"[Pp]rofile ([a-z][a-z-]+)", head) + re.findall(r"stages\.compose ([a-z-]+)", head):
        assert other in NAMES, other
    for module in re.findall(r"python -m ([\w.]+)", head):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    for path in re.findall(r"\b(?:docs|profiles|pipeline|stages|models)/[\w./-]+\w", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"dvc repro (experiments/[\w-]+)", head):
        assert Path(path).name in NAMES, path
