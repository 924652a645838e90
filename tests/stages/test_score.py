"""Scoring features of others: the figures are the engine's, whatever file they come in; bad files are named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from pipeline.base.errors import InputError
from pipeline.retrieval.external_features import read_external
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.reranking import Reranking, evaluate_reranked
from pipeline.retrieval.scores import data_set_metrics
from stages.tools import score
from tests.helpers.features_file import write_features
from tests.helpers.pair_distances import pair_distances


def arrays(parts: int = 1) -> dict[str, np.ndarray]:
    """Eight people in three cameras, six numbers a part; some gallery images are nobody's."""
    draw = np.random.default_rng(4)
    centres, found = draw.standard_normal((8, 6 * parts)), {}
    for part, count in (("query", 12), ("gallery", 50)):
        pid = draw.integers(0, 8, count)
        features = centres[pid] + 1.5 * draw.standard_normal((count, 6 * parts))
        found |= {f"{part}_features": features.astype(np.float32),
                  f"{part}_pid": pid, f"{part}_camid": draw.integers(0, 3, count)}
    found["gallery_pid"][::9] = -1
    return found


def sides(given: dict[str, np.ndarray], **more) -> tuple[Side, Side]:
    return tuple(Side(given[f"{part}_features"], more.get(f"{part}_visibility", np.ones((count, 1), np.float32)),
                      given[f"{part}_pid"], given[f"{part}_camid"], more.get(f"{part}_occlusion"))
                 for part, count in (("query", 12), ("gallery", 50)))


def save_mat(path, given: dict[str, np.ndarray]) -> None:
    short = {"features": "f", "pid": "label", "camid": "cam"}
    scipy.io.savemat(path, {f"{key.split('_')[0]}_{short[key.split('_')[1]]}": values for key, values in given.items()})


def call(*words) -> None:
    score.run(score.parse_arguments([str(word) for word in words]))


@pytest.mark.parametrize("ending", ["npz", "mat"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_figures_are_the_engine_s(tmp_path, capsys, ending, distance):
    given, path = arrays(), tmp_path / f"result.{ending}"
    np.savez(path, **given) if ending == "npz" else save_mat(path, given)
    call(path, "--json", tmp_path / "out.json", "--distance", distance)
    found = json.loads((tmp_path / "out.json").read_text())
    expected = data_set_metrics([evaluate(*sides(given), Matching((6,), distance, "mean"), pairs=True)])
    assert expected.items() <= found.items()
    expected |= expected["details"][0]
    assert found["distance"] == distance and found["reranking"] is None and found["average_precision"] == "step"
    shown = capsys.readouterr().out
    for name, value in (("rank-1", "rank1"), ("mAP", "mAP"), ("PR-AUC", "PR_AUC")):
        assert any(line.startswith(name) and f" {expected[value]:.2f}" in line for line in shown.splitlines()), shown
    assert f"{expected['queries']} queries scored, {expected['skipped']} skipped" in shown
    assert found["intervals"].startswith("95 % bootstrap over identities")
    assert f"bootstrap over {len(set(given['query_pid'].tolist()))} people" in shown


@pytest.mark.parametrize("more", [[], ["--rerank"]])
@pytest.mark.parametrize(("distance", "mean"), [("cosine", 87.21), ("euclidean", 88.48)])
def test_the_scale_of_features_is_no_matter(tmp_path, capsys, distance, mean, more):
    """One problem at several scales and, for Euclidean distances, far away; 87.21 and 88.48 by float64 at scale 1."""
    draw = np.random.default_rng(0)
    pid, gallery_pid = np.arange(20) % 10, np.arange(60) % 15
    centres = draw.normal(size=(15, 16))
    query, gallery = (centres[who] + 0.8 * draw.normal(size=(len(who), 16)) for who in (pid, gallery_pid))
    labels = {"query_pid": pid, "gallery_pid": gallery_pid, "query_camid": pid * 0 + 1,
              "gallery_camid": gallery_pid * 0 + 2}
    shown = {}
    for kind, scale, offset in (("f4", 1, 0), ("f4", 1e20, 0), ("f8", 1e200, 0), ("f4", 1e-30, 0), ("f8", 1e-250, 0),
                                ("f4", 1, 1e3), ("f4", 1e20, 1e22), ("f8", 1, 1e6)):
        if not offset or distance == "euclidean":
            np.savez(tmp_path / "f.npz", **labels, query_features=(query * scale + offset).astype(kind),
                     gallery_features=(gallery * scale + offset).astype(kind))
            call(tmp_path / "f.npz", "--distance", distance, *more)
            shown[kind, scale, offset] = capsys.readouterr().out
    assert len(set(shown.values())) == 1, shown
    assert more or f"mAP      {mean:.2f}" in shown["f4", 1, 0]


def test_parts_visibilities_and_occlusion(tmp_path, capsys):
    given, draw = arrays(parts=2), np.random.default_rng(0)
    more = {"query_visibility": draw.random((12, 2)).round(), "gallery_visibility": draw.random((50, 2)),
            "query_occlusion": np.where(np.arange(12) < 5, 0.2, 0.7)}
    np.savez(tmp_path / "f.npz", **given, **more, sizes=np.array([4, 8]))
    call(tmp_path / "f.npz", "--json", tmp_path / "out.json", "--reduction", "sum", "--trapezoid")
    matching = Matching((4, 8), "cosine", "sum")
    expected = data_set_metrics([evaluate(*sides(given, **more), matching, pairs=True, trapezoid=True)])
    found = json.loads((tmp_path / "out.json").read_text())
    assert expected.items() <= found.items() and found["sizes"] == [4, 8]
    rank1 = expected["details"][0]["rank1_hidden_10_30"]
    assert f"10-30 % of the body hidden: rank-1 {rank1:.2f}" in capsys.readouterr().out


def test_reranking_ranks_and_distances(tmp_path, capsys):
    given = arrays()
    np.savez(tmp_path / "f.npz", **given)
    call(tmp_path / "f.npz", "--json", tmp_path / "out.json", "--rerank", "--k1", 7, "--k2", 2, "--lambda", 0.4,
         "--ranks", 1, 3, "--save-distances", tmp_path / "d.npy")
    matching = Matching((6,), "cosine", "mean")
    scores = evaluate_reranked(*sides(given), matching, Reranking(7, 2, 0.4), pairs=True)
    found = json.loads((tmp_path / "out.json").read_text())
    assert data_set_metrics([scores]).items() <= found.items()
    assert found["rank3"] == round(100 * float(scores.cmc(3)[2]), 2)
    assert found["reranking"] == {"k1": 7, "k2": 2, "lambda": 0.4}
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), pair_distances(*sides(given), matching))
    assert "rank-3" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "said"), [(["--k1", 7], "--k1: of re-ranking, .* leave it out"),
                                             (["--k2", 0, "--lambda", 0.3], "--k2, --lambda: .* leave them out")])
def test_options_that_would_do_nothing_are_refused(tmp_path, words, said):
    np.savez(tmp_path / "f.npz", **arrays())
    with pytest.raises(InputError, match=said):
        call(tmp_path / "f.npz", *words)
    call(tmp_path / "f.npz", "--rerank", "--k1", 3, "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["reranking"] == {"k1": 3, "k2": 6, "lambda": 0.3}


def test_a_list_of_keys_paths_or_names_leaves_the_same_pictures_out(tmp_path, capsys):
    """Of a file whose names are the paths of an index, in an order of its own that distances keep."""
    given, counts = arrays(), {"query": 12, "gallery": 50}
    rows = {part: [(f"{part}/{row:03d}.jpg", f"{part}s/{97 * row % 53}.jpg") for row in range(count)]
            for part, count in counts.items()}
    (tmp_path / "index.csv").write_text("image,path,pid,camid,split\n" + "".join(
        f"{key},{path},{given[f'{part}_pid'][row]},{given[f'{part}_camid'][row]},{part}\n"
        for part in ("gallery", "query") for row, (key, path) in enumerate(rows[part])))
    names = {f"{part}_name": np.array([path for _, path in rows[part]])[::-1] for part in counts}
    np.savez(tmp_path / "f.npz", **{name: values[::-1] for name, values in given.items()}, **names)
    kept = sides({name: values[::-1] for name, values in given.items()})
    kept = kept[0].take(np.delete(np.arange(12), 8)), kept[1].take(np.delete(np.arange(50), [39, 48]))  # 11 - 3, ..
    expected = evaluate(*kept, Matching((6,), "cosine", "mean"), pairs=True)
    for column in (0, 1):
        (tmp_path / "list.csv").write_text("path,reason\n" + "".join(
            f"{rows[part][row][column]},wrong\n" for part, row in (("query", 3), ("gallery", 1), ("gallery", 10))))
        call(tmp_path / "f.npz", "--ignore", tmp_path / "list.csv", "--index", tmp_path / "index.csv", "--json",
             tmp_path / "out.json", "--save-distances", tmp_path / "d.npy")
        found = json.loads((tmp_path / "out.json").read_text())
        assert (found["ignored"]["query"], found["ignored"]["gallery"], found["ignored"]["elsewhere"]) == (1, 2, 0)
        assert data_set_metrics([expected]).items() <= found.items()
        np.testing.assert_array_equal(np.load(tmp_path / "d.npy"),
                                      pair_distances(*kept, Matching((6,), "cosine", "mean")))


@pytest.mark.parametrize("part", ["query", "gallery"])
@pytest.mark.parametrize("more", [[], ["--save-distances", "d.npy"]])
def test_nobody_left_is_one_sentence(tmp_path, monkeypatch, part, more):
    """By a list, but for those of nobody; or in the file itself, whose distances are not written either."""
    monkeypatch.chdir(tmp_path)
    given = arrays()
    names = {f"{each}_name": np.array([f"{each}{row}.jpg" for row in range(len(given[f"{each}_pid"]))])
             for each in ("query", "gallery")}
    np.savez("named.npz", **given, **names)
    np.savez("junk.npz", **given | {f"{part}_pid": given[f"{part}_pid"] * 0 - 1})
    listed = names[f"{part}_name"][given[f"{part}_pid"] != -1]
    Path("all.csv").write_text("path,reason\n" + "".join(f"{name},wrong\n" for name in listed))
    what = {"query": "queries", "gallery": "gallery images"}[part]
    with pytest.raises(InputError, match=rf"all.csv': leaves out .* of .* {what}, so that none is left to score"):
        call("named.npz", "--ignore", "all.csv", *more)
    with pytest.raises(InputError, match=rf"junk.npz': leaves no {part} image to score \(.*\); give the identities"):
        call("junk.npz", *more)
    assert not Path("d.npy").exists()


def test_features_of_this_project(tmp_path, capsys):
    path = write_features(tmp_path / "features.h5")
    call(path, "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["details"][0]["queries"] == 6
    with pytest.raises(InputError, match="features.h5.*says itself how its features are compared"):
        call(path, "--distance", "cosine")
    trials = write_features(tmp_path / "trials.h5", trial=np.arange(24) // 12)
    with pytest.raises(InputError, match="trials.h5.*has 2 trials"):
        call(trials, "--save-distances", tmp_path / "d.npy")
    call(trials)
    assert "in 2 trials, means over them" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "said"), [
    ({"query_pid": None}, "lacks the array 'query_pid'; it has gallery_camid"),
    ({"query_pid": np.arange(5)}, r"query_pid has shape \(5,\), and there are 12 query images"),
    ({"gallery_camid": np.full(50, 0.5)}, "gallery_camid must hold whole numbers"),
    ({"gallery_pid": np.array(["a"] * 50)}, "gallery_pid is <U1 of shape"),
    ({"query_features": np.ones((12, 5))}, "features of queries have 5 columns and those of the gallery 6"),
    ({"query_features": np.ones(12)}, r"query_features is float64 of shape \(12,\)"),
    ({"gallery_features": np.where(np.arange(300).reshape(50, 6) == 8, np.nan, 1)}, "row 1 of gallery_features is not"),
    ({"query_features": np.ones((0, 6)), "query_pid": [], "query_camid": []}, "holds no query image"),
    ({"sizes": np.array([4, 4])}, r"sizes are \[4, 4\] and the features have 6 columns"),
    ({"query_visibility": np.full((12, 1), 1.5)}, "query_visibility has shape .* values from 1.5"),
    ({"query_visibility": np.ones((12, 3))}, r"it must be \(12, 1\)"),
    ({"query_occlusion": np.full(12, 40)}, "query_occlusion must hold numbers within 0..1"),
    ({"query_visibility": np.ones((12, 1))}, "has query_visibility and no gallery_visibility; give both or none"),
    ({"gallery_visibility": np.ones((50, 1))}, "has gallery_visibility and no query_visibility; give both or none"),
    ({"gallery_name": np.arange(50).astype(str)}, "has gallery_name and no query_name; give both or none"),
    ({"query_visibilities": np.ones((12, 1)), "gallery_vis": np.ones((50, 1))},
     "has 'gallery_vis', 'query_visibilities', and what is read is query_features, .*, query_visibility, .*; call"),
    ({"size": np.array([6])}, "has 'size', and what is read is .*sizes"),
    ({"query_pid": np.array([None] * 12)}, "no .npz file of plain numbers")])
def test_bad_arrays(tmp_path, change, said):
    given = {key: values for key, values in (arrays() | change).items() if values is not None}
    np.savez(tmp_path / "bad.npz", **given)
    with pytest.raises(InputError, match=f"bad.npz.*{said}"):
        read_external(tmp_path / "bad.npz", distance="cosine", reduction="mean")


def test_what_is_no_array_of_this_layout_may_stand_beside_it(tmp_path):
    np.savez(tmp_path / "more.npz", **arrays(), epoch=np.array(3), comment=np.array("of a Tuesday"))
    assert len(read_external(tmp_path / "more.npz", distance="cosine", reduction="mean").query) == 12


def test_bad_files(tmp_path):
    np.savez(tmp_path / "good.npz", **arrays())
    save_mat(tmp_path / "good.mat", arrays())
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for ending in ("npz", "mat"):
        whole = (tmp_path / f"good.{ending}").read_bytes()
        for name, content in (("cut", whole[:len(whole) // 2]), ("empty", b""), ("text", b"rank-1 is 99 %\n" * 40)):
            (tmp_path / f"{name}.{ending}").write_bytes(content)
            with pytest.raises(InputError, match=f"{name}.{ending}.*damaged or no .{ending} file"):
                read_external(tmp_path / f"{name}.{ending}", distance="cosine", reduction="mean")
        with pytest.raises(InputError, match=f"absent.{ending}': no such file"):
            read_external(tmp_path / f"absent.{ending}", distance="cosine", reduction="mean")
    with pytest.raises(InputError, match="one.npz.*no .npz file"):
        read_external(tmp_path / "one.npz", distance="cosine", reduction="mean")
    with pytest.raises(InputError, match="x.csv.*read from .npz and .mat files"):
        read_external(tmp_path / "x.csv", distance="cosine", reduction="mean")
    scipy.io.savemat(tmp_path / "other.mat", {"x": 1})
    with pytest.raises(InputError, match="other.mat.*lacks the array 'query_f'; it has x"):
        read_external(tmp_path / "other.mat", distance="cosine", reduction="mean")


def test_whole_numbers_in_other_types_are_read(tmp_path):
    """As MATLAB saves them: labels as doubles, big-endian or column-major features, whole-numbered features."""
    given = arrays()
    query, gallery = sides(given)
    odd = given | {"query_pid": given["query_pid"][None].astype(float),
                   "query_features": given["query_features"].astype(">f4"),
                   "gallery_features": np.asfortranarray(given["gallery_features"])}
    np.savez(tmp_path / "odd.npz", **odd)
    found = read_external(tmp_path / "odd.npz", distance="cosine", reduction="mean")
    assert found.query.pid.tolist() == query.pid.tolist() and found.query.pid.dtype == np.int64
    for side, expected in zip((found.query, found.gallery), (query, gallery), strict=True):
        np.testing.assert_array_equal(side.features, expected.features)
        assert side.features.flags["C_CONTIGUOUS"] and side.features.dtype == np.float32
    np.savez(tmp_path / "odd.npz", **given | {"query_features": np.arange(72).reshape(12, 6)})
    assert read_external(tmp_path / "odd.npz", distance="cosine", reduction="mean").query.features[1, 0] == 6


def test_a_bad_file_is_one_line_and_status_2(tmp_path):
    done = subprocess.run([sys.executable, "-m", "stages.tools.score", str(tmp_path / "absent.mat")],
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "absent.mat': no such file" in done.stderr
