"""The protocol's line says what made the metrics, and what nobody knows."""

import doctest

from pipeline.reporting import protocol
from pipeline.reporting.paper_page import remarks
from pipeline.reporting.paper_tables import Own
from pipeline.reporting.protocol import protocol_line
from pipeline.reporting.table_formats import as_markdown
from tests.helpers.paper_tables import table, write_result

MAKER = {"parser": "lraspp", "source_sha256": "ab" * 32, "exact": True}
MADE = {"model": "sorn", "seed": 1, "image_steps": 8000, "init": "none", "distance": "cosine", "reduction": "mean",
        "protocol": "market", "caches": {"data/cache/people/parts.h5": {"maker": MAKER, "sha256": "0"}}}


def test_every_rule_is_said_once_in_one_line():
    warped = MADE | {"model": "dsa", "seed": 0, "init": "run:sorn", "distance": "euclidean",
                     "caches": {"data/cache/people/dsap.h5": {"maker": {"parts": MAKER | {"exact": False}}}}}
    line = protocol_line([MADE, warped, MADE], reranking="k-reciprocal (k1 20, k2 6, lambda 0.3)", seeds=(2,))
    assert line == (
        "Protocol market: Market-1501's camera rule (gallery images of the query's person and camera are removed, a "
        "query with no match left is skipped); distance cosine, mean over parts by visibility or euclidean, mean over "
        "parts by visibility; AP: step sum; re-ranking: k-reciprocal (k1 20, k2 6, lambda 0.3); no flip at test time; "
        "parser: lraspp (weights abababababab) or lraspp (weights abababababab, its 8 parts approximate); start: "
        "random weights or the weights of sorn; pictures seen: 8,000; seeds 0, 1, 2; last epoch, nothing picked on the "
        "test set.")


def test_what_is_trained_nowhere_and_what_is_not_known():
    histogram = MADE | {"model": "histogram", "image_steps": 0, "caches": {}}
    assert "parser: none; nothing trained." in protocol_line([histogram])
    assert "pictures seen: 8,000; seed 1; last epoch" in protocol_line([histogram, MADE])
    others = protocol_line([{"distance": "euclidean", "reduction": "sum"}], average_precision="trapezoid")
    assert "distance euclidean, sum over parts by visibility; AP: trapezoid" in others and "last epoch" not in others
    assert "not said by the file" in others and "not said by the file" in protocol_line([MADE, {"distance": "cosine"}])


def test_a_paper_s_table_says_its_protocol_and_its_budgets():
    made = MADE | {"train_on": "people"}
    said = list(remarks({}, {"sorn": {"d": made}, "sorn-s0": {"d": made | {"seed": 0}}}, rendered=[],
                        networks={"sorn": "resnet18 at 128 x 64", "sorn-s0": "resnet50 at 384 x 128"},
                        seeds={"sorn": [1], "sorn-s0": [0]}))
    assert said[0] == protocol_line([made, made | {"seed": 0}])
    assert said[1:] == [
        "Here: sorn: resnet18 at 128 x 64 from random weights, trained on people with 8,000 image steps, seed 1, masks "
        "by lraspp (weights abababababab).",
        "Here: sorn-s0: resnet50 at 384 x 128 from random weights, trained on people with 8,000 image steps, seed 0, "
        "masks by lraspp (weights abababababab)."]


def test_a_paper_s_table_says_which_seeds_stand_behind_its_figures_and_differences(folders):
    """Of the seeds that are there those count that a row has in common with the full model's."""
    rows = {"SORN": ("full", (0, 1, 2)), "Global+Semantic": ("less", (0, 2, 4)), "Local+Semantic": ("alone", (0,))}
    own = {}
    for row, (name, seeds) in rows.items():
        results = [f"{name}-{seed}" for seed in seeds]
        for result, seed in zip(results, seeds, strict=True):
            write_result(folders, result, {"occluded": (50.0 + seed, 40.0)}, seed=seed)
        own[row, "", "occluded-dukemtmc"] = Own(results[0], tuple(results[1:]), "occluded", name == "full", "")

    made = table(folders, "sorn", "I", own)
    text = as_markdown(made.shown)
    assert "pictures seen: 8,000; seeds 0, 2; last epoch" in text
    budget = "resnet18 at 128 x 64 from random weights, trained on synth-holistic with 8,000 image steps, seed 0"
    assert f"Here: full-0, less-0: {budget} (in differences 0, 2).\n" in text and f"Here: alone-0: {budget}.\n" in text
    frame = made.frame[(made.frame["metric"] == "rank1") & (made.frame["seeds"] > 0)].set_index("row")
    assert frame["seeds"].to_dict() == {"Global+Semantic": 2, "Local+Semantic": 1}


def test_doctests():
    assert doctest.testmod(protocol).failed == 0
