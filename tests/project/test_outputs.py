"""Outputs that cannot be written: one sentence from every command, before it reads anything, and no half of a file."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.base.files import PROBE
from pipeline.config import paths
from pipeline.renderer.dataset import Plan, render_dataset
from tests.helpers.bare_params import Entry, write_experiment
from tests.helpers.fake_runs import DATA, RAW, fake_sections
from tests.helpers.fake_set import HEIGHT, WIDTH, write_fake_caches, write_fake_set
from tests.helpers.forks import Told, fork, forking
from tests.helpers.tiny_set import write_set
from tests.helpers.trees import tree, write_tree
from tests.parsing.test_photograph_set import WRITE
from tests.parsing.test_taught_set import write_teacher

ROOT = Path(__file__).resolve().parents[2]

# Command -> words, files that it writes, folders that it puts in their place whole. One key serves every stage.
COMMANDS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "compose": (["figures", "--force"], ["experiments/figures/params.yaml", "experiments/figures/plan.yaml",
                                         "experiments/figures/dvc.yaml"], []),
    "render": (["people"], [], ["data/raw/people"]),
    "fetch": (["hub"], [], ["data/checkpoints/hub"]),
    "joints": (["tiny"], ["data/cache/tiny/joints.h5"], []),
    "prepare": (["people"], ["data/index/people.csv", "data/index/people.txt"], []),
    "ignore": (["people"], ["data/ignored/people.csv"], []),
    "occlude": (["people-hidden"], [], ["data/raw/people-hidden"]),
    "train_parser": (["small"], ["data/parsers/small/weights.safetensors", "data/results/parsers/small.json"], []),
    "train_photographs": (["photos"], ["data/parsers/photos/weights.safetensors", "data/results/parsers/photos.json"],
                          []),
    "train_taught": (["taught"], ["data/parsers/taught/weights.safetensors", "data/results/parsers/taught.json"], []),
    "parse": (["tiny"], ["data/cache/tiny/parts.h5", "scratch/parse-tiny/units"], []),
    "parse_crops": (["tiny-crops"], ["data/cache/tiny-crops/crops.h5", "scratch/parse-crops-tiny-crops/units"], []),
    "warp": (["tiny"], ["data/cache/tiny/dsap.h5", "scratch/warp-tiny/units"], []),
    "train": (["baseline"], ["data/runs/baseline/weights.safetensors", "data/runs/baseline/train.json",
                             "data/runs/baseline/trained_on.json"], []),
    "embed": (["baseline"], [f"data/features/baseline/{DATA}.h5"], []),
    "evaluate": (["baseline"], ["data/curves/default/baseline.csv", "data/ranks/default/baseline.csv"],
                 ["data/results/default/baseline"]),
    "neighbours": (["page-baseline"], ["data/neighbours/default/page/baseline.json"], []),
    "report": (["page"], [], ["data/reports/default/page"]),
    "paper_tables": (["all"], [], ["data/reports/default/tables"]),
    "paper_figure": (["lists"], [], ["data/reports/default/figures/lists"]),
    "sweep": (["swept"], [], ["data/reports/default/sweeps/swept"]),
    "tools.audit_cache": (["tiny", "--out", "audit/out"], ["audit/out/audit.json", "audit/out/outliers.png",
                                                           "audit/out/random.png"], []),
    "tools.inspect_cache": (["data/cache/tiny/parts.h5", "--export", "inspect/out"], [], ["inspect/out"]),
    "tools.compare": ([f"data/features/baseline/{DATA}.h5", f"data/features/baseline/{DATA}.h5", "--out",
                       "compare/out"], ["compare/out/compare.json", "compare/out/changed.csv"], []),
    "tools.export": (["baseline", "export/out/b.onnx"], ["export/out/b.onnx", "export/out/b.md"], []),
    "tools.lint": ([DATA, "--json", "lint/out/found.json"], ["lint/out/found.json"], []),
    "tools.release_parser": (["data/parsers/small/weights.safetensors", "released/out/small.safetensors"],
                             ["released/out/small.safetensors"], []),
    "tools.score": ([f"data/features/baseline/{DATA}.h5", "--json", "score/out/m.json", "--save-distances",
                     "score/out/d.npy"], ["score/out/m.json", "score/out/d.npy"], []),
    "tools.search": ([f"{RAW}/query/0030_c1s1_000000_00.png", f"{RAW}/gallery", "baseline", "--out", "search/out"],
                     ["search/out/ranks.png", "search/out/ranks.csv"], []),
    "tools.split_market": (["split/source", "split/out/dev"], [], ["split/out/dev"]),
}
LIKELY = [name for name in COMMANDS if name not in ("compose", "fetch", "parse_crops", "report", "paper_tables",
                                                   "paper_figure", "tools.compare", "tools.lint",
                                                   "tools.split_market")]  # the last three write little


def sections() -> tuple[Entry, Entry]:
    """params.yaml and plan.yaml with a key for every stage."""
    params, plan = fake_sections()
    size = {"height": HEIGHT, "width": WIDTH}
    parser = {"architecture": "lraspp", "init": "none", **size, "image_steps": 8, "batch": 4, "lr": 1e-3,
              "augment": "all", "seed": 0, "workers": 0}
    shown = {"dataset": DATA, "index": paths.index(DATA).as_posix(), "raw": RAW}
    params |= {
        "render": {"people": {"kind": "holistic", "stream": "people", "seed": 0, **size, "train_ids": 2, "test_ids": 2,
                              "train_images": 2, "query_images": 1, "gallery_images": 3, "processes": 1}},
        "datasets": {"people": {"layout": "market"}},
        "occlude": {"people-hidden": {"stream": "hidden", "seed": 0, "low": 0.2, "high": 0.5}},
        "parsers": {"small": {**parser, "labels": "densepose24", "uv": True}},
        "photographs": {"photos": {**parser, "layout": "lip"}},
        "taught": {"taught": {**parser, "layout": "ccp", "share": 0.5}},
        "caches": {"tiny": {"parser": "oracle", **size, "batch": 4, "threads": 1}},
        "crops": {"tiny-crops": {"thresholds": [0.2] * 4, "scores": "normalised"}},
        "warps": {"tiny": {**size, "texels": 8, "alignment": "dsap"}},
        "joints": {"tiny": {"estimator": "coco"}}}
    tiny = {"dataset": "tiny", "index": "tiny/index.csv", "raw": "tiny/raw"}
    plan |= {
        "fetch": {"hub": {"repository": "owner/name", "revision": "0" * 40}},
        "joints": {"tiny": {**tiny, "source": "tiny/points.json"}},
        "prepare": {"people": {"raw": "market"}},
        "ignore": {"people": {"index": shown["index"], "list": "ignore.csv"}},
        "occlude": {"people-hidden": {"index": shown["index"], "raw": RAW}},
        "train_parser": {"small": {"raw": "parsing"}},
        "train_photographs": {"photos": {"raw": "photographs", "start": "photographs"}},
        "train_taught": {"taught": {"rendered": "parsing", "raw": "clothes", "teacher": "clothes.h5",
                                    "start": "parsing"}},
        "parse": {"tiny": {**tiny, "source": "tiny/raw/labels.h5"}},
        "parse_crops": {"tiny-crops": {**tiny, "source": "weights.safetensors", "cache": "tiny", "owner": "default",
                                       "parts": "data/cache/tiny/parts.h5", "train_index": "tiny/index.csv",
                                       "train_parts": "data/cache/tiny/parts.h5"}},
        "warp": {"tiny": {**tiny, "parts": "data/cache/tiny/parts.h5"}},
        "evaluate": {"baseline": {"features": "data/features/baseline", "datasets": [DATA], "rendered": []}},
        "neighbours": {"page-baseline": {"report": "page", "result": "baseline", "dataset": DATA,
                                         "features": f"data/features/baseline/{DATA}.h5"}},
        "report": {"page": {"title": "a page", "shows": ["baseline"], "scores": "data/results/parsers/small.json",
                            "parsed_on": "parsing", "cache": "tiny", **shown}},
        "paper_tables": {"all": {"rendered": [], "networks": {}, "tables": []}},
        "sweep": {"swept": {"paper": "sorn", "figure": "8", "what": "tau", "axis": "linear", "dataset": DATA,
                            "trained_on": DATA, "printed_on": [], "best": [], "values": [0, 1],
                            "results": ["baseline", "baseline"]}},
        "figure_lists": {"lists": {"title": "lists", "count": 2, **shown, "rendered": True, "shows": ["baseline"] * 2,
                                   "trained_on": [DATA] * 2, "names": ["a", "b"], "first": "data/ranks/a.csv",
                                   "second": "data/ranks/b.csv"}}}
    return params, plan


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[..., Told]]:
    """Runs a command in a folder, in a process of its own."""
    with forking(OMP_NUM_THREADS="1", MPLBACKEND="agg") as programs:
        yield lambda folder, command, **more: fork(programs, folder, f"stages.{command}", COMMANDS[command][0], **more)


def write_project(folder: Path) -> Path:
    params, plan = sections()
    write_experiment(folder, params=params, plan=plan)
    return folder


@pytest.fixture
def bare(tmp_path) -> Path:
    """What says what is to be made, and nothing to make it from."""
    return write_project(tmp_path)


def composing(folder: Path) -> None:
    """The project's own profiles, for compose, at whose root its experiments stand."""
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copytree(ROOT / "docs/papers", folder / "docs/papers")
    for name in ("params.yaml", "plan.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "experiments/tables", folder / "experiments/tables")


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in folder.rglob("*")}


def sentence(told: Told, name: str) -> str:
    """Exit status 2, nothing printed, one line of error that names the output; that line."""
    status, printed, said = told
    lines = [line for line in said.split("\n") if line and "\r" not in line]  # no bars
    assert status == 2 and printed == "" and len(lines) == 1, told
    assert lines[0].startswith("error: ") and f"{name}': cannot be written (" in lines[0], lines
    assert "make room or mend the folder and run again" in lines[0]
    return lines[0]


def outputs(command: str) -> list[tuple[str, bool]]:
    """Each output of a command and whether it is a folder."""
    _, files, folders = COMMANDS[command]
    return [*((name, False) for name in files), *((name, True) for name in folders)]


OUTPUTS = [(command, name, folder) for command in COMMANDS for name, folder in outputs(command)]


def test_every_command_is_tested():
    """Of link the output is what is in the way: tests/project/test_experiments.py."""
    stages = {path.relative_to(ROOT / "stages").with_suffix("").as_posix().replace("/", ".")
              for path in (ROOT / "stages").rglob("*.py") if "__main__" in path.read_text() and path.stem != "__init__"}
    assert COMMANDS.keys() == stages - {"link"}


@pytest.mark.parametrize(("command", "name", "folder"), OUTPUTS)
def test_what_is_in_an_output_s_way_is_named_before_anything_is_read(server, bare, command, name, folder):
    """A file in a folder's way or a folder in a file's; then a file where a folder above should be."""
    if command == "compose":
        composing(bare)
    place = bare / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("in the way") if folder else place.mkdir()
    before = snapshot(bare)
    said = sentence(server(bare, command), name)
    assert ("a file has this name" if folder else "a folder has this name") in said and snapshot(bare) == before

    place.unlink() if folder else place.rmdir()
    place.parent.rmdir()
    place.parent.write_text("in the way")
    before = snapshot(bare)
    first = next(other for other, _ in outputs(command) if Path(other).parent == Path(name).parent)
    assert "is no folder" in sentence(server(bare, command), first) and snapshot(bare) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_takes_no_file_is_named_before_anything_is_read(server, bare, command):
    """/proc takes none, of nobody: root may write where a folder is closed to others."""
    if command == "compose":
        composing(bare)
    name = outputs(command)[0][0]
    parent = (bare / name).parent
    parent.parent.mkdir(parents=True, exist_ok=True)
    parent.symlink_to("/proc")
    before = sorted(path.name for path in bare.rglob("*"))
    said = sentence(server(bare, command), name)
    assert "No such file" in said or "denied" in said
    assert sorted(path.name for path in bare.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_named_before_anything_is_read(server, bare, command):
    if command == "compose":
        composing(bare)
    before = snapshot(bare)
    said = sentence(server(bare, command, limit=0), outputs(command)[0][0])
    assert "File too large" in said and snapshot(bare) == before


@pytest.fixture(scope="module")
def made(server, tmp_path_factory) -> Path:
    """All that the likely commands make, each into folders that were not there."""
    folder = write_project(tmp_path_factory.mktemp("made"))
    frame = write_fake_set(folder / RAW, folder / paths.index(DATA), ids=30)
    write_fake_caches(folder / f"data/cache/{DATA}", folder / RAW, frame)
    some = frame.loc[frame.duplicated("split"), "path"]  # all but the first of each split
    listed = "".join(f"{path},{'two people in one box ' * 20}\n" for path in some)
    (folder / "ignore.csv").write_text(f"path,reason\n{listed}")
    images = write_set(folder / "tiny", 12)["path"]
    people = [{"image_id": path, "keypoints": [9.0, 9.0, 1.0] * 17} for path in images]
    (folder / "tiny/points.json").write_text(json.dumps(people))
    render_dataset(Plan(key="parsing", kind="parsing", seed=0, height=HEIGHT, width=WIDTH, train_ids=2, train_images=3,
                        test_ids=2, query_images=1, gallery_images=2), folder / "parsing", 1)
    WRITE["lip"](folder / "photographs")
    write_teacher(WRITE["ccp"](folder / "clothes"), folder / "clothes.h5")
    shots = [shot for pid in range(1, 40) for shot in (("train", 100 + pid, 1), ("query", pid, 1), ("gallery", pid, 2))]
    write_tree(folder / "market", tree("market", shots))
    for command in LIKELY:
        status, _, said = server(folder, command)
        assert status == 0, (command, said)
        assert all((folder / name).exists() for name, _ in outputs(command) if "scratch" not in name), command
    return folder


@pytest.mark.parametrize("command", LIKELY)
def test_a_disk_that_fills_up_leaves_the_old_output_and_no_half_of_a_new_one(server, made, command):
    """No file may pass PROBE bytes, so that the look before the work finds room."""
    parts, aside = made / "data/cache/tiny/parts.h5", made / "aside.h5"
    if command == "parse":  # which has nothing to do otherwise
        parts.rename(aside)
    before = snapshot(made)
    status, _, said = server(made, command, limit=PROBE)
    if command == "parse":
        assert not parts.exists()
    last = [line for line in said.split("\n") if line and "\r" not in line][-1]
    assert status == 2 and "Traceback" not in said and last.startswith("error: "), said
    assert "cannot be written (File too large); make room" in last
    after = snapshot(made)
    if command == "parse":
        aside.rename(parts)
    assert not [name for name in after if name.endswith(".tmp") or ".probe" in name]
    changed = {name for name in before if after.get(name) != before[name]}
    assert {name for name in changed if "/live" not in name and "scratch" not in name} == set()


@pytest.mark.parametrize("command", ["prepare", "render", "tools.score", "tools.search"])
def test_what_is_printed_into_a_full_disk_is_one_sentence(server, made, command):
    status, _, said = server(made, command, stdout="/dev/full")
    last = [line for line in said.split("\n") if line and "\r" not in line][-1]
    assert status == 2 and last == ("error: what is printed: cannot be read or written (No space left on device); make "
                                    "room or mend it and run again")
    assert "Traceback" not in said and "Exception ignored" not in said


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word(made):
    """As `| head` does."""
    shown, printed = os.pipe()
    os.close(shown)
    done = subprocess.run([sys.executable, "-m", "stages.tools.inspect_cache", "data/cache/tiny/parts.h5"], cwd=made,
                          stdout=printed, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    os.close(printed)
    assert (done.returncode, done.stderr) == (141, "")
