"""What stands beside the papers' rows: other readings and other probes, made and shown wherever the row is."""

import pytest

from pipeline.config.paper_rows import counterpart, read_rows, run_name
from tests.helpers.compositions import Entry, wanted

pytestmark = pytest.mark.usefixtures("at_root")


def test_partial_reid_s_probes_are_those_the_paper_uses(papers):
    """Its table has the paper's probes, which SGSFA does not name; every row is scored on the others too."""
    for paper, probes in {"esa": "partial-reid-occluded", "sgsfa": "partial-reid-occluded",
                          "sgam": "partial-reid-partial", "sorn": "partial-reid-occluded"}.items():
        tree = papers[paper]
        for table in tree["paper_tables"]["all"]["tables"]:
            for row in table["rows"]:
                if row["dataset"] == "partial-reid":
                    assert tree["datasets"][row["data"]]["layout"] == probes, paper
                    scored = {tree["datasets"][name]["layout"] for name in tree["evaluate"][row["result"]]["datasets"]}
                    assert scored >= {"partial-reid-occluded", "partial-reid-partial"}, row["result"]


def test_sgsfa_s_older_reading_is_made_wherever_its_row_is(rendered, papers):
    """SGSFA's older reading: trained and scored on the sets of the full model's rows, each of its switches turned."""
    for tree, scale in ((rendered, "tables"), (papers["sgsfa"], "paper-sgsfa")):
        pairs = set()
        for row in read_rows():
            if row.variant == "sgsfa":
                rows = wanted(scale)
                train, test = (counterpart("sgsfa", name, rows) for name in (row.train_on, row.dataset))
                names = [run_name(variant, train, rows) for variant in ("sgsfa", "sgsfa-all")]
                paper, other = (tree["runs"][tree["embed"][f"{name}-on-{test}"]["run"]] for name in names)
                switches = {"classified": "spatial", "triplet": "semantic", "regions": "sampled"}
                assert paper["model"] == other["model"] | switches and not switches.keys() & other["model"].keys()
                assert {**paper, "model": {}} == {**other, "model": {}}
                assert all(test in tree["evaluate"][name]["datasets"] for name in names)
                pairs.add(tuple(names))
        assert len(pairs) == (2 if scale == "tables" else 4)


def test_what_stands_beside_a_row_is_made_wherever_the_row_is(rendered, papers):
    """ESA's other readings: scored on all sets of that row, and another network by what is named here alone."""
    for name, beside, changed in (("esa-gated", "esa", {"attention": "gated"}),
                                  ("esa-cache", "esa", {"semantics": "cache"}),
                                  ("esa-g-attended", "esa-g", {"attention": "soft"})):
        for tree, scale in ((rendered, "tables"), (papers["esa"], "paper-esa")):
            trained = {row.train_on for row in read_rows() if row.variant == beside}
            assert trained
            for dataset in trained:
                train = counterpart("esa", dataset, wanted(scale))
                own, row = (run_name(variant, train, wanted(scale)) for variant in (name, beside))
                assert set(tree["evaluate"][own]["datasets"]) == set(tree["evaluate"][row]["datasets"])
                runs = [{"attention": "soft"} | tree["runs"][key]["model"] for key in (own, row)]
                assert runs[0] == runs[1] | changed and runs[0] != runs[1]
                assert {**tree["runs"][own], "model": {}} == {**tree["runs"][row], "model": {}}


def test_tables_show_what_stands_beside_a_row(rendered, papers):
    """Other readings in every table that has their row; on the papers' own sets also the other probes, of every row."""
    def of(tree: Entry, paper: str, table: str) -> set[tuple[str, ...]]:
        (plan,) = [plan for plan in tree["paper_tables"]["all"]["tables"] if (plan["paper"], plan["table"]) ==
                   (paper, table)]
        assert {(row["row"], row["setting"], row["dataset"]) for row in plan.get("beside", [])} <= {
            (row["row"], row["setting"], row["dataset"]) for row in plan["rows"]}
        return {(row["row"], row["name"], row["result"], row["data"]) for row in plan.get("beside", [])
                if row["dataset"] in ("partial-reid", "occluded-dukemtmc")}

    assert of(rendered, "esa", "4") == {
        ("g", "esa-g-attended", "esa-g-attended-synth-holistic", "synth-partial"),
        ("our", "esa-gated", "esa-gated-synth-holistic", "synth-partial"),
        ("our", "esa-cache", "esa-cache-synth-holistic", "synth-partial")}
    assert of(rendered, "sgsfa", "1") == {("SGSFA", "sgsfa-all", "sgsfa-all", "synth-occluded")}
    assert of(rendered, "sgam", "1") == of(rendered, "sorn", "I") == set()
    occluded, partial = "partial-reid-occluded", "partial-reid"
    assert of(papers["esa"], "esa", "2") == {
        ("Baseline", "on partial-reid", "esa-baseline-market1501", partial),
        ("ESA-ReID(ours)", "esa-gated", "esa-gated-market1501", occluded),
        ("ESA-ReID(ours)", "esa-cache", "esa-cache-market1501", occluded),
        ("ESA-ReID(ours)", "on partial-reid", "esa-market1501", partial)}
    assert of(papers["sgam"], "sgam", "2") == {("SGAM", "on partial-reid-occluded", "sgam-market1501", occluded)}
    assert {row[1] for row in of(papers["sorn"], "sorn", "V")} == {"on partial-reid"}


def test_table_4_s_row_g_has_no_attention(rendered):
    """4.4.3: "removing the entropy-based mask"; the pooled feature in the unconfident one's place."""
    model = rendered["runs"]["esa-g-synth-holistic"]["model"]
    assert (model["unconfident"], model["attention"]) == ("global", "none")
