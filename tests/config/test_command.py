"""`python -m stages.compose`: what it writes, --with, experiments that stand on others, --check, edits by hand."""

import shutil
from pathlib import Path

import pytest

from pipeline.config.loader import load_experiment
from tests.config.conftest import ROOT
from tests.config.test_written_by_hand import one_sentence


def texts() -> dict[str, str]:
    return {str(path): path.read_text() for path in sorted(Path().rglob("*.yaml")) if "profiles" not in path.parts}


def folders(*names: str) -> None:
    for name in names:
        Path("data/raw", name).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def mine(command):
    Path("profiles/mine.yaml").write_text("include: [small]\non: [default]\nruns: {mine: {like: small-sorn}}\n")
    return command


def test_what_is_committed_is_what_the_profiles_give(monkeypatch, capsys):
    from stages.compose import check_all
    monkeypatch.chdir(ROOT)
    check_all()


def test_an_experiment_is_written_with_those_it_stands_on_and_the_stages(mine):
    ended = mine("mine")
    assert ended.status == 0 and ended.error == ""
    assert ended.out.splitlines() == ["params.yaml: profile default, 8 runs and 3 data sets of its own",
                                      "experiments/mine/params.yaml: profile mine, 1 runs and 0 data sets of its own"]
    assert Path("experiments/mine/dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    before = texts()
    assert mine("mine").out.splitlines() == ended.out.splitlines()[1:] and texts() == before
    experiment = load_experiment("mine")
    assert experiment.plan.root == "../.." and experiment.plan.folder == "experiments/mine/"
    assert load_experiment().plan.root == "." and load_experiment().plan.folder == ""
    assert mine("--check").status == 0 and texts() == before


def test_files_that_are_not_there_are_said_and_an_id_without_its_commit(command):
    folders("here", "mine")
    Path("data/raw/mine/there.pth").touch()
    Path("profiles/mine.yaml").write_text("""
include: [small]
on: [default]
datasets: {here: {layout: market, raw: data/raw/here}}
caches:
  here: {dataset: here, parser: huggingface, source: owner/parser, labels: fashn18, input_height: 0, input_width: 0,
         height: 128, width: 64, batch: 8, threads: 1}
runs:
  a: {like: small-baseline, train_on: here, eval_on: [here], init: data/raw/mine/there.pth}
  b: {like: small-baseline, train_on: here, eval_on: [here], init: data/raw/mine/gone.pth}
""")
    ended = command("mine")
    assert ended.status == 0 and ended.error == (
        "not here yet, and `dvc repro` will ask for them: 'data/raw/mine/gone.pth', 'owner/parser' (a checkpoint of "
        "the Hub is named owner/name@COMMIT)\n")
    assert "Params(" not in Path("experiments/mine/params.yaml").read_text()


def test_absent_data_sets_are_one_sentence_with_the_command_that_leaves_them_out(command):
    folders("market1501", "partial-reid")
    ended = command("paper-sorn")
    said = one_sentence(ended, "'profiles/paper-sorn.yaml'", "occluded-dukemtmc is not in 'data/raw/occluded-dukemtmc'")
    assert "occluded-reid" in said and "cuhk03-labeled" in said and "market1501 is not" not in said
    way = "python -m stages.compose paper-sorn --with market1501 partial-reid partial-reid-occluded"
    assert f"`{way}`" in said and not Path("experiments").exists()
    done = command(*way.split()[3:])
    assert done.status == 0 and "without dukemtmc-reid, occluded-dukemtmc" in done.out
    kept = "--with market1501 partial-reid partial-reid-occluded"
    for name in ("paper", "paper-sorn"):
        text = Path(f"experiments/{name}/params.yaml").read_text()
        assert text.startswith(f"# composed from profile {name} {kept}, ")
    shutil.rmtree("data")  # on a machine without any data
    assert command("default").status == 0 and command("--check").status == 0


def test_with_names_what_there_is(command):
    folders("market1501_dev")
    one_sentence(command("market", "--with", "market1501-dve"), "--with: profile market has no data set 'market1501-d",
                 "did you mean 'market1501-dev'", "it has: market1501-dev")
    one_sentence(command("default", "--with", "market1501"), "has no data set 'market1501'", "it has: none")
    one_sentence(command("folder"), "pictures is not in 'data/raw/pictures'", "there is no other")
    assert command("market", "--with", "market1501-dev").status == 0
    assert command("default").status == 0 and command("--check").status == 0


def test_a_mistyped_folder_is_named(command):
    folders("mine")
    Path("profiles/mine.yaml").write_text("include: [small]\non: [default]\ndatasets: {mine: {layout: market, raw: "
                                          "data/raw/mien}, other: {layout: market, raw: data/raw/mine}}\n")
    one_sentence(command("mine"), "'profiles/mine.yaml': mine is not in 'data/raw/mien'; put or link it there, or",
                 "leave it out: `python -m stages.compose mine --with other`")
    Path("data/raw/mien").touch()
    one_sentence(command("mine"), "mine is not in 'data/raw/mien'")


def test_what_an_experiment_uses_has_to_be_kept_by_those_it_stands_on(command):
    folders("market1501", "partial-reid")
    assert command("paper", "--with", "market1501").status == 0
    assert command("paper-esa", "--with", "market1501").status == 0
    ended = command("paper-sorn", "--with", "market1501", "partial-reid")
    said = one_sentence(ended, "'experiments/paper/params.yaml'", "without partial-reid, which paper-sorn uses")
    assert "`python -m stages.compose paper --with market1501 partial-reid`" in said
    assert command("paper", "--with", "market1501", "partial-reid").status == 0
    assert command("paper-sorn", "--with", "market1501", "partial-reid").status == 0
    assert command("paper", "--with", "market1501").status == 0
    command("default")
    one_sentence(command("--check"), "'experiments/paper/params.yaml'", "was composed without partial-reid")


def test_edits_by_hand_stop_it_and_are_named_in_both_files(mine):
    assert mine("mine").status == 0
    for file, old, new, said in (
            ("params.yaml", "lambda_spc: 0.5", "lambda_spc: 0.25", "runs.mine.model.lambda_spc: 0.5 -> 0.25"),
            ("plan.yaml", "protocol: market", "protocol: duke", "plan.embed_three.mine.sets")):
        path = Path("experiments/mine", file)
        before = texts()
        path.write_text(path.read_text().replace(old, new, 1))
        edited = texts()
        one_sentence(mine("mine"), f"'{path}': was edited by hand: {said}", f"`git checkout {path}`", "--force")
        assert texts() == edited, "nothing was written"
        one_sentence(mine("--check"), f"'{path}': is not what profile mine gives ({said}")
        assert mine("mine", "--force").status == 0 and texts() == before


def test_a_changed_profile_is_found_and_composed_without_force(mine):
    assert mine("mine").status == 0
    path = Path("profiles/mine.yaml")
    path.write_text(path.read_text().replace("like: small-sorn", "like: small-sorn, seed: 7"))
    one_sentence(mine("--check"), "'experiments/mine/params.yaml'", "(runs.mine.seed: 7 -> 0)", "python -m")
    assert mine("mine").status == 0 and mine("--check").status == 0
    assert load_experiment("mine").run("mine").seed == 7
    text = Path("experiments/mine/params.yaml").read_text()
    Path("experiments/mine/params.yaml").write_text(text.replace("# Edit profiles", "# Change profiles"))
    one_sentence(mine("--check"), "(a comment or how it is written)")


def test_a_folder_of_another_profile_s_parameters(mine):
    assert mine("mine").status == 0
    Path("profiles/other.yaml").write_text("include: [small]\non: [default]\n")
    Path("experiments/mine").rename("experiments/other")
    one_sentence(mine("--check"), "'experiments/other/params.yaml': was composed from profile 'mine'; compose")
