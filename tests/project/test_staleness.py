"""Staleness: which edits make trainings stale and which do not, on stubs."""

from pathlib import Path

from benchmarks.project import ROOT, Project
from pipeline.config.plan import EMBED
from tests.helpers.stubs import fill, stale

GEM = '''"""Generalised-mean pooling."""

from models.backbone import Backbone


class Gem:
    def __init__(self, *, backbone: Backbone, ids: int, match: str, p: float):
        self.backbone, self.p = backbone, p
'''
PARAMETERS = '''@dataclass(frozen=True)
class GemParams:
    """Generalised-mean pooling."""

    name: str = doc("the network: models/<name>.py")
    p: float = doc("the power; 1 is the mean", low=1)

    def matchable(self) -> tuple[str, ...]:
        return ("all",)

    def cache_file(self, features: str | None) -> str | None:
        return None

    def arrays(self) -> tuple[str, ...]:
        return ()


'''
PROFILE = """
include: [small]
on: [default]
recipes: {small-gem: {like: small-baseline, model: {name: gem, p: 3.0}, eval_on: [synth-occluded]}}
runs: {gem: {like: small-gem}}
"""


def trained(project: Project) -> set[str]:
    """The stale stages that train, embed or parse."""
    return {name for name in stale(project) if name.split("@")[0] in (
        "train", *EMBED, "train_parser", "parse", "warp", "render", "prepare")}


def append(project: Project, name: str, text: str) -> None:
    path = project.folder / name
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), encoding="utf-8")


def add_network(project: Project) -> None:
    """docs/adding-a-network.md, literally: two files, a profile with recipe and run."""
    (project.folder / "models/gem.py").write_text(GEM, encoding="utf-8")
    schema = project.folder / "pipeline/config/model_params.py"
    replace(schema, "@dataclass(frozen=True)\nclass BaselineParams:", f"{PARAMETERS}@dataclass(frozen=True)\n"
            "class BaselineParams:")
    replace(schema, "ModelParams = (", "ModelParams = (GemParams | ")
    replace(schema, '"baseline": BaselineParams', '"gem": GemParams, "baseline": BaselineParams')
    (project.folder / "profiles/gem.yaml").write_text(PROFILE, encoding="utf-8")
    changed = Project(project.folder)  # its own code, in a Python of its own
    for name in ("gem", "default", "one", "two"):
        changed.run("python", "-m", "stages.compose", name)


def test_what_trains_nothing_makes_no_training_stale(house):
    """A comment in compose, rows of the tables' lists, a line in reporting, notes in rooms, another network."""
    assert stale(house) == set()
    append(house, "pipeline/config/compose.py", "# a comment\n")
    append(house, "profiles/tables/rows.csv", "\n")
    append(house, "docs/papers/tables.csv", "\n")
    append(house, "pipeline/reporting/plots.py", "A_LINE = 1\n")
    for room in ("loading", "caches", "base", "training"):
        (house.folder / "pipeline" / room / "note.md").write_text("a note")
    add_network(house)

    found = trained(house)
    assert {name for name in found if "gem" not in name} == set()
    assert found == {"train@gem", "embed@gem"}  # they are new
    assert {name for name in stale(house) if name.split("@")[0] == "report"} == {"report@rendered", "report@two"}


def test_a_line_in_loading_makes_all_that_trains_stale(house):
    append(house, "pipeline/loading/dataset.py", "A_LINE = 1\n")
    expected = {"baseline", "sorn", "dsa", "esa", "sgsfa", "sgam", "one-sorn", "two-baseline"}
    assert {name.split("@")[1] for name in stale(house) if name.startswith("train@")} == expected


def test_a_line_in_a_network_makes_its_own_runs_stale(house):
    append(house, "models/sorn.py", "A_LINE = 1\n")
    assert {name for name in stale(house) if name.startswith("train@")} == {"train@sorn", "train@one-sorn"}


def test_a_report_is_stale_once_a_run_leaves_the_profile(house):
    """One that its lists do not show, whose results stay where they are; the page kept its row."""
    profile = house.folder / "profiles/two.yaml"
    text = profile.read_text(encoding="utf-8")
    profile.write_text(f"{text}beside: [sorn]\n", encoding="utf-8")  # on the default's data set, not the report's
    house.run("python", "-m", "stages.compose", "two")
    assert {name for name in stale(house) if name.endswith(("@sorn", "@two"))} == {"evaluate@sorn", "report@two"}
    fill(house)
    assert stale(house) == set()

    profile.write_text(text, encoding="utf-8")
    house.run("python", "-m", "stages.compose", "two")
    assert (house.folder / "data/results/two/sorn").is_dir() and stale(house) == {"report@two"}


def test_the_page_on_adding_a_network_names_what_this_test_adds():
    page = (ROOT / "docs/adding-a-network.md").read_text(encoding="utf-8")
    words = ("models/gem.py", "class GemParams:", '"gem": GemParams', "small-gem", "small-baseline")
    assert all(word in page for word in words)


TUNED = """
include: [small]
on: [default]
recipes:
  small-sorn: {height: 64, width: 32, image_steps: 32, batch: 16, eval_on: [synth-occluded]}
  small-dsa: {height: 64, width: 32, image_steps: 32, batch: 16, ids_per_batch: 4, eval_on: [synth-occluded]}
runs:
  tuned: {like: small-sorn, init: run:sorn}
  further: {like: small-sorn, init: run:tuned}
  other: {like: small-dsa, init: run:dsa}
"""


def test_a_run_is_stale_once_the_weights_that_it_starts_from_change(house):
    """A run of another experiment's: `sorn` is the default's. The second in a row waits for the first."""
    (house.folder / "profiles/tuned.yaml").write_text(TUNED, encoding="utf-8")
    house.run("python", "-m", "stages.compose", "tuned")
    assert {name for name in stale(house) if name.startswith("train")} == {
        "train_from@tuned", "train_from@further", "train_from@other"}  # they are new, and nothing old is stale
    fill(house)
    assert stale(house) == set()

    change(house, "data/runs/sorn/weights.safetensors")
    assert {name for name in stale(house) if name.startswith("train")} == {"train@sorn", "train_from@tuned"}
    change(house, "data/runs/tuned/weights.safetensors")
    assert {name for name in stale(house) if name.startswith("train")} == {"train@sorn", "train_from@tuned",
                                                                         "train_from@further"}


def change(project: Project, name: str) -> None:
    """Other bytes in a file; DVC's cache, which it may be a link into, keeps the old ones."""
    path = project.folder / name
    path.unlink()
    path.write_text("other weights", encoding="utf-8")
