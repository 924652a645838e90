import shutil
from pathlib import Path

import pytest
import yaml
from bare_params import SECTIONS
from dvc.utils.serialize import dumps_yaml, parse_yaml

from pipeline.errors import InputError
from pipeline.params_file import load_params
from stages import compose

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml") if path.stem not in ("recipes", "parser"))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(profile: str) -> Path:
    path = Path("params.yaml")
    path.write_text(compose.as_text(compose.compose(profile), profile))
    return path


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_composes_to_parameters_that_load(project, profile):
    params = load_params(_write(profile))
    for section in SECTIONS:
        assert all(key.startswith((f"{params.scale}-", "default-")) for key in getattr(params, section))
    compose.check(Path("params.yaml"))


def test_what_is_written_reads_back_the_same(project):
    tree = compose.compose("default")
    assert yaml.safe_load(_write("default").read_text()) == tree


def test_a_data_set_not_on_disk_is_left_out_with_its_runs(project):
    without = compose.compose("market")
    (project / "data/raw/market1501_dev").mkdir(parents=True)
    with_it = compose.compose("market")
    assert set(with_it["runs"]) - set(without["runs"]) == {
        f"default-market-{name}" for name in ("histogram", "untrained", "baseline", "sorn")}
    assert "default-market1501-dev" in with_it["caches"] and "default-market1501-dev" not in without["caches"]


def test_caches_of_outside_parsers_and_parsers_of_photographs_have_their_own_sections(project):
    assert compose.compose("folder-precomputed")["external"] == {} == compose.compose("photographs")["photographs"]
    for name in ("pictures", "clothing-co-parsing", "market1501_dev"):
        (project / "data/raw" / name).mkdir(parents=True)
    for name, source, reads in (("precomputed", "data/raw/parses", "pipeline/labelmaps/lip20.yaml"),
                                ("huggingface", "data/raw/checkpoint", "pipeline/labelmaps/atr18.yaml"),
                                ("densepose", "data/raw/densepose/model_final_162be9.pkl",
                                 "data/raw/densepose/densepose_rcnn_R_50_FPN_s1x.yaml")):
        params = load_params(_write(f"folder-{name}"))
        (key, cache), = params.external.items()
        assert key == f"default-pictures-{name}" and not (params.caches or params.parsers or params.render)
        assert (cache.parser, cache.source, cache.reads, cache.images) == (name, source, reads, "data/raw/pictures")
        assert [warp.parts for warp in params.warps.values()] == ([key] if name == "densepose" else [])
    params = load_params(_write("photographs"))
    assert params.photographs["default-ccp-lraspp"].layout == "ccp" and not params.parsers
    assert (params.caches["default-market1501-dev-ccp"].source
            == "parsers/default-ccp-lraspp/weights.safetensors")
    (project / "data/raw/clothing-co-parsing").rmdir()
    assert compose.compose("photographs")["caches"] == {}


def test_a_cache_may_name_its_weights(project):
    profile = Path("profiles/mine.yaml")
    profile.write_text("include: [default]\ncaches: {synth-partial: {source: other/weights.safetensors}}\n")
    caches = compose.compose("mine")["caches"]
    assert caches["default-synth-partial"]["source"] == "other/weights.safetensors"
    assert caches["default-synth-occluded"] == compose.compose("default")["caches"]["default-synth-occluded"]


def test_profiles_of_one_scale_agree_on_what_they_share(project):
    """DVC keeps one pin per stage name: an entry must mean the same whichever selection is composed."""
    for profile in ("market", "real"):
        for entry in yaml.safe_load((project / f"profiles/{profile}.yaml").read_text())["datasets"].values():
            Path(entry["raw"]).mkdir(parents=True, exist_ok=True)
    trees = [compose.compose(name) for name in PROFILES]
    for one in trees:
        for other in trees:
            for section in SECTIONS:
                shared = one[section].keys() & other[section].keys()
                assert all(one[section][key] == other[section][key] for key in shared)


TRIALS = """
include: [default]
datasets: {cuhk01: {layout: cuhk01-100, raw: data/raw/cuhk01, trials: 3}}
caches: {cuhk01: {like: parse, dataset: cuhk01}}
warps:
  cuhk01: {like: warp, dataset: cuhk01}
  cuhk01-csa: {like: warp, dataset: cuhk01, parts: cuhk01, alignment: csa}
runs:
  few: {like: small-dsa, train_on: cuhk01, eval_on: [cuhk01]}
  few-fused: {of: few, match: {features: z}}
  few-csa: {like: small-dsa, train_on: cuhk01, eval_on: [cuhk01], cache: cuhk01-csa}
  sorn: {eval_on: [cuhk01, synth-occluded]}
"""


def test_trials_of_a_protocol_are_so_many_runs_of_one_result(project):
    (project / "data/raw/cuhk01").mkdir(parents=True)
    (project / "profiles/few.yaml").write_text(TRIALS)
    params = load_params(_write("few"))
    plain = compose.compose("default")
    for trial in range(3):
        data = f"default-cuhk01-{trial}"
        assert params.datasets[data].layout == f"cuhk01-100-{trial}" and params.datasets[data].raw == "data/raw/cuhk01"
        assert params.caches[data].dataset == params.warps[data].dataset == params.warps[data].parts == data
        assert params.warps[f"default-cuhk01-csa-{trial}"].parts == data
        assert params.runs[f"default-few-csa-{trial}"].reads == f"data/cache/default-cuhk01-csa-{trial}/dsap.h5"
        run, embed = params.runs[f"default-few-{trial}"], params.embed[f"default-few-{trial}-on-cuhk01-{trial}"]
        assert run.train_on == data and run.reads == f"data/cache/{data}/dsap.h5"
        assert (embed.run, embed.result, embed.dataset) == (f"default-few-{trial}", "default-few", data)
        fused = params.embed[f"default-few-fused-{trial}-on-cuhk01-{trial}"]
        assert (fused.run, fused.result, fused.match.features) == (f"default-few-{trial}", "default-few-fused", "z")
    for result in ("few", "few-fused", "few-csa"):
        assert params.evaluate[f"default-{result}"].features == tuple(
            f"default-{result}-{trial}-on-cuhk01-{trial}" for trial in range(3))
    assert params.evaluate["default-sorn"].features == (
        *(f"default-sorn-on-cuhk01-{trial}" for trial in range(3)), "default-sorn-on-synth-occluded")
    assert set(params.runs) - set(plain["runs"]) == {f"default-{name}-{trial}" for name in ("few", "few-csa")
                                                     for trial in range(3)}
    assert set(params.evaluate) - set(plain["evaluate"]) == {"default-few", "default-few-fused", "default-few-csa"}
    text = TRIALS.replace("train_on: cuhk01, eval_on: [cuhk01]}", "train_on: cuhk01, eval_on: [synth-partial]}")
    (project / "profiles/few.yaml").write_text(text)
    with pytest.raises(InputError, match="few.eval_on: few is trained once for each trial of 'cuhk01', and 'synth-par"):
        compose.compose("few")


def test_another_model_replaces_one_and_the_same_is_merged():
    base = {"model": {"name": "esa", "tau": 0.5, "margin": 0.3}}
    assert compose._merge(base, {"model": {"tau": 0.7}}) == {"model": {"name": "esa", "tau": 0.7, "margin": 0.3}}
    assert compose._merge(base, {"model": {"name": "esa", "tau": 0.7}})["model"]["margin"] == 0.3
    assert compose._merge(base, {"model": {"name": "pcb", "width": 8}}) == {"model": {"name": "pcb", "width": 8}}
    assert compose._merge({"model": {"tau": 0.5}}, {"model": {"name": "esa"}})["model"] == {"tau": 0.5, "name": "esa"}
    assert compose._merge({}, {"model": {"name": "esa"}}) == {"model": {"name": "esa"}}


def test_hand_edits_are_named_and_stop(project):
    path = _write("default")
    assert compose.hand_edits(path) == []
    path.write_text(path.read_text().replace("lambda_spc: 0.5", "lambda_spc: 0.25"))
    assert compose.hand_edits(path) == ["runs.default-sorn.model.lambda_spc: 0.5 -> 0.25"]
    with pytest.raises(InputError, match="is not what profile default gives"):
        compose.check(path)


def test_unknown_names_list_the_choices(project):
    with pytest.raises(InputError, match="profiles/nothing.yaml: no such profile; there are .*default"):
        compose.compose("nothing")
    with pytest.raises(InputError, match="like: nothing: no such recipe; there are .*sorn"):
        compose._like({"like": "nothing"}, {"sorn": {}})


@pytest.mark.parametrize("profile", PROFILES)
def test_dvc_reads_back_what_its_lock_file_says_of_a_profile(project, profile):
    """DVC's YAML breaks a long key over two lines, which it then cannot read."""
    tree = compose.compose(profile)
    assert parse_yaml(dumps_yaml(tree), "dvc.lock") == tree
