"""Tables of the papers with results made up, as the stage makes them."""

import csv
from pathlib import Path

from pipeline.reporting.paper_page import PaperTable, remarks
from pipeline.reporting.paper_tables import Own, compare, read_notes, read_own, read_printed, seeds_behind
from pipeline.reporting.table_formats import show
from tests.helpers import results

ROOT = Path(__file__).resolve().parents[2]
PRINTED, NOTES = ROOT / "docs/papers/tables.csv", ROOT / "docs/papers/notes.csv"
with open(PRINTED, encoding="utf-8", newline="") as _file:
    TABLES = list(dict.fromkeys((line["paper"], line["table"]) for line in csv.DictReader(_file)))
ABOUT = {"model": "sorn", "image_steps": 8000, "init": "none", "train_on": "synth-holistic", "seed": 0,
         "distance": "cosine", "reduction": "mean", "protocol": "market"}


def write_result(folders, name, metrics, *, rank3=0.5, **about):
    """A result file and curve as `evaluate` writes them; metrics: data set -> (rank1, mAP)."""
    content = {data: {"rank1": rank1, "mAP": mean, "mINP": 1.0, "details": [
        {"rank5": 90.0, "rank10": 95.0, "PR_AUC": 31.25, "rank1_low": rank1 - 1, "rank1_high": rank1 + 1,
         "mAP_low": mean - 2, "mAP_high": mean + 2}]} for data, (rank1, mean) in metrics.items()}
    results.write_result(folders["results"] / name, content,
                         ABOUT | {"intervals": "95 % bootstrap over identities, 1000 draws"} | about)
    (folders["curves"] / f"{name}.csv").write_text("run,dataset,rank,cmc\n" + "".join(
        f"{name},{data},{rank},{rank3:.4f}\n" for data in metrics for rank in (1, 2, 3)))


def table(folders, paper, number, own, rendered=()):
    """A paper's table as the stage makes it."""
    lines = read_printed(PRINTED, paper, number)
    scores, provenance = read_own(own.values(), **folders)
    frame, networks = compare(lines, own, scores), dict.fromkeys(scores, "resnet18 at 128 x 64")
    return PaperTable(frame, show(frame, key=f"{paper}-{number}", paper=paper, table=number,
                                  caption=lines[0].table_title, notes=read_notes(NOTES, paper, number),
                                  remarks=list(remarks(own, provenance, rendered=rendered, networks=networks,
                                                       seeds=seeds_behind(own, scores)))))


def sorn_v():
    """SORN's own row of Table V, on rendered people."""
    return {("SORN (ours)", "trained on market1501", name): Own("sorn-synth-holistic", (), "synth-partial", True, "")
            for name in ("partial-reid", "partial-ilids")}
