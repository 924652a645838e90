"""The whole pipeline on a handful of rendered people: what every stage leaves behind, and that it fits together."""

import json

import h5py
import numpy as np

from pipeline.base.files import file_sha256
from pipeline.caches.cache import Cache
from pipeline.config import paths
from pipeline.datasets.index import read_index

DATA = "synth-occluded"


def test_caches_belong_to_the_index(tiny):
    index = read_index(tiny.folder / paths.index(DATA))
    for name in ("parts.h5", "dsap.h5"):
        cache = Cache(tiny.folder / paths.cache(DATA, name))
        rows = cache.rows(index["image"].tolist())
        assert sorted(rows) == list(range(len(index)))
    parts = Cache(tiny.folder / paths.cache(DATA, "parts.h5"))
    row = int(parts.rows([index["image"][0]])[0])
    image = tiny.folder / paths.raw(DATA) / index["path"][0]
    assert parts.read("image_sha256", row).item().decode() == file_sha256(image)
    assert parts.maker["source_sha256"] == file_sha256(tiny.folder / paths.parser_weights("lraspp"))


def test_every_run_has_weights_features_and_metrics(tiny):
    index = read_index(tiny.folder / paths.index(DATA))
    for run in ("baseline", "esa", "sgsfa", "sgam", "dsa", "sorn"):
        with h5py.File(tiny.folder / paths.features(run, DATA)) as file:
            assert len(file["key"]) == (index["split"] != "train").sum()
            assert np.isfinite(file["features"][:]).all()
            assert file["features"].shape[1] == file["sizes"][:].sum()
        metrics = json.loads((tiny.folder / paths.metrics("default", run) / f"{DATA}.json").read_text())
        counts = metrics["details"][0]
        assert counts["queries"] + counts["skipped"] == (index["split"] == "query").sum()
        assert 0 <= metrics["rank1"] <= counts["rank5"] <= 100
        assert metrics["provenance"][0]["image_steps"] == 32


def test_the_report_is_one_page_that_needs_nothing_else(tiny):
    page = (tiny.folder / paths.report("default", "rendered") / "index.html").read_text()
    assert "synth-occluded" in page and "data:image/png;base64" in page
    assert 'src="http' not in page and 'href="http' not in page


def test_figures_say_of_which_runs_and_images_they_are(tiny):
    for key, runs in (("esa-7", ["esa"]), ("sgam-7", ["baseline", "sgam"])):
        folder = tiny.folder / paths.report("default", "figures", key)
        said = (folder / "figure.md").read_text()
        assert all(f"`{run}`, trained on `{DATA}`" in said for run in runs)
        assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_making_a_cache_again_gives_the_same_bytes(tiny):
    for stage, name in (("parse", "parts.h5"), ("warp", "dsap.h5")):
        path = tiny.folder / paths.cache(DATA, name)
        before = file_sha256(path)
        moved = path.with_suffix(".before")
        path.rename(moved)
        tiny.run("python", "-m", f"stages.{stage}", DATA)
        assert file_sha256(path) == before
        moved.unlink()
