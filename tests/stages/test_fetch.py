"""The stage fetch, with a stand-in for the Hub: a pinned checkpoint into its folder, and what can go wrong."""

import sys
import types
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from stages import fetch as stage
from tests.helpers.bare_params import bare_experiment

REVISION = "0123456789abcdef0123456789abcdef01234567"


def hub(monkeypatch, files=("config.json", "model.safetensors"), error=None):
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns, local_dir):
        asked.append((repository, revision))
        assert "config.json" in allow_patterns
        for name in (*files, ".cache/huggingface/note"):
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / name).write_text(revision)
            if error:
                raise error
        return str(local_dir)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    return asked


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = bare_experiment(plan={"fetch": {"mine": {"repository": "owner/name", "revision": REVISION}}})
    return lambda: stage.run(experiment, "mine")


def test_a_pinned_checkpoint_lies_in_its_folder(run, monkeypatch, capsys):
    asked = hub(monkeypatch)
    run()
    folder = Path("data/checkpoints/mine")
    assert asked == [("owner/name", REVISION)]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert f"mine: owner/name at {REVISION}" in capsys.readouterr().out


@pytest.mark.parametrize(("how", "words"), [
    ({"error": ConnectionError("no\nroute")}, r"owner/name@0123.* no such checkpoint \(ConnectionError: no route\)"),
    ({"error": OSError("gated")}, "gives no such checkpoint .*accept its terms"),
    ({"files": ("model.bin",)}, "holds no config.json"),
    ({"files": ("config.json",)}, "holds no weights under transformers' names")])
def test_what_the_hub_does_not_give_is_one_sentence_and_what_was_there_stays(run, monkeypatch, how, words):
    hub(monkeypatch)
    run()
    hub(monkeypatch, **how)
    with pytest.raises(InputError, match=words) as caught:
        run()
    assert "\n" not in str(caught.value)
    assert [path.name for path in Path("data/checkpoints").iterdir()] == ["mine"]
    assert Path("data/checkpoints/mine/config.json").read_text() == REVISION


def test_a_missing_library_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="not installed.*requirements-parsers.txt"):
        run()
