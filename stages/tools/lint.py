"""What in a data set, or in features, moves the metrics: python -m stages.tools.lint synth-occluded --features F.h5

    python -m stages.tools.lint data/index/market1501-dev.csv --images data/raw/market1501_dev
    python -m stages.tools.lint theirs.npz

The data set is an index or its key under data/index/, or a features file alone. Prints one page: cameras, queries that
the camera rule leaves without a match, pictures that are the same to the byte, people in train and test or seen by one
camera, hubs, lengths of features; and where there are features what each line does to rank-1 and mAP, by scoring
without what it is about. It changes nothing: what should go is listed in an exclusion list (--ignore, docs/trust.md).
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_json
from pipeline.config import paths
from pipeline.inspection.labels import Finding, labels
from pipeline.reporting.protocol import protocol_line
from pipeline.retrieval.exclusions import Excluded, read_exclusions
from pipeline.retrieval.features import Embedded
from pipeline.retrieval.hubs import FIRST, LEAST, occurrences
from pipeline.retrieval.opening import lengths, open_features
from pipeline.retrieval.paired import identity_sums, means
from pipeline.retrieval.ranking import evaluate
from stages import sentences
from stages.shared.ignoring import FEWER, IDENTITIES, given_index, in_order, scorable

ENDINGS = (".h5", ".hdf5", ".npz", ".mat")  # of features
FAR = 100  # times the median from which a length is odd
TOLD = 5  # hubs that are named on the page


@dataclass(frozen=True)
class Metrics:
    """rank1 and mAP in percent, and over how many queries."""
    rank1: float
    mAP: float  # noqa: N815
    queries: int


def run(given: argparse.Namespace) -> None:
    """Look, print the page, and write it as JSON where that is asked."""
    if given.json is not None:
        writable(given.json)
    alone = given.data.endswith(ENDINGS)
    if alone and given.features is not None:
        raise InputError(f"{given.data!r}: is a features file, and --features names another; give the data set first, "
                         "an index or its key")
    file = Path(given.data) if alone else given.features
    frame = None if alone else given_index(given.data)
    embedded = None if file is None else open_features(file, distance=given.distance, reduction=given.reduction)
    if embedded is not None:
        if len(embedded.trials()) > 1:
            raise InputError(f"{str(file)!r}: has {len(embedded.trials())} trials, and one set of queries is looked at "
                             "here; give the features of one")
        scorable(embedded, file, IDENTITIES)
        if alone and given.images is not None and not embedded.named:
            raise InputError(f"{given.data!r}: names no pictures, so that those in {str(given.images)!r} cannot be "
                             "looked at; give the data set's index, and this with --features")
        embedded = in_order(embedded, frame)
        if frame is None:
            embedded, frame = _alone(embedded)
        embedded = _named(embedded, frame, str(file), given.data)
    assert frame is not None

    frame, excluded = _without_listed(frame, given.ignore)
    if embedded is not None:
        embedded = _leave(embedded, frozenset({*embedded.query_key, *embedded.gallery_key} - set(frame["image"])))
        if given.ignore is not None:
            scorable(embedded, given.ignore, FEWER)
    findings = labels(frame, given.images if alone else _images(given))
    if embedded is not None:
        findings += [hubs(embedded), odd_lengths(embedded)]

    whole = None if embedded is None else score(embedded)
    effects = {finding.name: effect(finding, embedded, whole) for finding in findings}
    print("\n".join(page(given, frame, findings, embedded, whole, effects, excluded)))
    if given.json is not None:
        write_json(given.json, content(findings, whole, effects, excluded))


def _alone(embedded: Embedded) -> tuple[Embedded, pd.DataFrame]:
    """Features without an index, and the rows of one as far as they say them. A name that a query and a gallery image
    share, as Occluded-Duke's do, gets its split before it in the keys."""
    names = [embedded.query_key.tolist(), embedded.gallery_key.tolist()]
    if not set(names[0]).isdisjoint(names[1]):
        embedded = replace(embedded, query_key=np.array([f"query/{name}" for name in names[0]]),
                           gallery_key=np.array([f"gallery/{name}" for name in names[1]]))
    return embedded, pd.concat(
        [pd.DataFrame({"image": keys, "path": paths, "pid": side.pid, "camid": side.camid, "split": split})
         for split, keys, paths, side in (("query", embedded.query_key, names[0], embedded.query),
                                          ("gallery", embedded.gallery_key, names[1], embedded.gallery))],
        ignore_index=True)


def _named(embedded: Embedded, frame: pd.DataFrame, file: str, index: str) -> Embedded:
    """The features under the index's keys. InputError if they are of other pictures or people."""
    keys = []
    for split, side, own in (("query", embedded.query, embedded.query_key),
                             ("gallery", embedded.gallery, embedded.gallery_key)):
        rows = frame[frame["split"] == split]
        if len(rows) != len(side):
            raise InputError(f"{file!r}: has {len(side)} {split} images, and {index!r} has {len(rows)}; give the index "
                             "of these features")
        rows = rows.set_index("image", drop=False)
        if embedded.named:
            strange = [key for key in own.tolist() if key not in rows.index]
            if strange:
                raise InputError(f"{file!r}: has the {split} image {strange[0]!r}, and {index!r} has not; give the "
                                 "index of these features")
            rows = rows.loc[own.tolist()]
        other = np.flatnonzero((rows["pid"].to_numpy() != side.pid) | (rows["camid"].to_numpy() != side.camid))
        if len(other):
            row, entry = other[0], rows.iloc[other[0]]
            raise InputError(f"{file!r}: {split} {row} is of person {side.pid[row]}, camera {side.camid[row]}, and in "
                             f"{index!r} it is {entry['image']!r} of person {entry['pid']}, camera {entry['camid']}; "
                             "give the index of these features, in its order where they name no pictures")
        keys.append(rows["image"].to_numpy(str))
    return replace(embedded, query_key=keys[0], gallery_key=keys[1], named=True)


def _without_listed(frame: pd.DataFrame, path: Path | None) -> tuple[pd.DataFrame, Excluded | None]:
    """The rows that the exclusion list does not name, and what it named."""
    if path is None:
        return frame, None
    listed = read_exclusions(path)
    strange = set(listed.reasons) - {*frame["image"], *frame["path"]}
    if strange:
        raise InputError(f"{str(path)!r}: {min(strange)!r} is no picture of the data set; take it out or mend the path")

    reasons = [listed.reasons.get(image, listed.reasons.get(place))
               for image, place in zip(frame["image"], frame["path"], strict=True)]
    named = np.array([reason is not None for reason in reasons], bool)
    counts = Counter(frame.loc[named, "split"])
    for split in ("query", "gallery"):
        if counts[split] and counts[split] == (frame["split"] == split).sum():
            raise InputError(f"{str(path)!r}: leaves no {split} image to score; {FEWER}")
    return frame[~named], Excluded(str(path), listed.sha256, len(listed.reasons), counts["query"], counts["gallery"],
                                   counts["train"], dict(Counter(reason for reason in reasons if reason is not None)))


def _images(given: argparse.Namespace) -> Path | None:
    """The pictures' folder: as given, or where the pipeline makes that of a key."""
    if given.images is not None:
        return given.images
    folder = paths.raw(given.data)
    return folder if not given.data.endswith(".csv") and folder.is_dir() else None


def hubs(embedded: Embedded) -> Finding:
    """Gallery images that answer many queries wrongly."""
    counts = occurrences(embedded.query, embedded.gallery, embedded.matching)
    rows = counts.hubs()
    named = ", ".join(f"{str(embedded.gallery_key[row])!r} {counts.wrong[row]}" for row in rows[:TOLD])
    expected = min(FIRST, len(embedded.gallery)) * len(embedded.query) / len(embedded.gallery)
    said = (f"{len(rows)} gallery picture{'s are' if len(rows) != 1 else ' is'} the wrong first answer to {LEAST} "
            f"queries or more, of {int(counts.wrong[rows].sum())} of the {counts.answers} that are answered wrongly"
            f"{f': {named}' * bool(len(rows))}{', ...' * (len(rows) > TOLD)}; one stands among the first {FIRST} of "
            f"{counts.among.max()} queries, {expected:.1f} is the mean, skewness {counts.skewness():.2f}")
    return Finding("hubs", len(rows), said, frozenset(embedded.gallery_key[rows].tolist()))


def odd_lengths(embedded: Embedded) -> Finding:
    """Features of length 0, or of another order than the others."""
    images: list[str] = []
    told, zero, far = [], 0, 0
    for part, side, keys in (("query", embedded.query, embedded.query_key),
                             ("gallery", embedded.gallery, embedded.gallery_key)):
        found = lengths(side)
        some = found[found > 0]
        middle = float(np.median(some)) if len(some) else 0.0
        odd = (found > 0) & ((found > FAR * middle) | (found < middle / FAR))
        zero, far = zero + int((found == 0).sum()), far + int(odd.sum())
        images += keys[(found == 0) | odd].tolist()
        told.append(f"{part} {some.min():.4g} to {some.max():.4g}, median {middle:.4g}" if len(some)
                    else f"{part} all 0")
    first = f" ({images[0]!r} first)" if images else ""
    said = f"{'; '.join(told)}; {zero} are 0, {far} are {FAR} times longer or shorter than the median{first}"
    return Finding("lengths", zero + far, said, frozenset(images))


def score(embedded: Embedded) -> Metrics:
    scores = evaluate(embedded.query, embedded.gallery, embedded.matching)
    rank1, mean = 100 * means(identity_sums([scores])[1])
    return Metrics(float(rank1), float(mean), int((scores.first > 0).sum()))


def _leave(embedded: Embedded, images: frozenset[str]) -> Embedded:
    rows = [np.flatnonzero([key not in images for key in keys.tolist()])
            for keys in (embedded.query_key, embedded.gallery_key)]
    return embedded.take(*rows)


def effect(finding: Finding, embedded: Embedded | None, whole: Metrics | None) -> tuple[str, Metrics | None]:
    """What the line does to the metrics, in words, and the metrics without it; nothing where that says all."""
    if embedded is None or whole is None:
        return "", None
    if finding.name == "cameras":
        apart = np.full(len(embedded.gallery), embedded.query.camid.min() - 1)
        without, said = score(replace(embedded, gallery=replace(embedded.gallery, camid=apart))), \
            "if pictures of a query's own person and camera counted"
    elif finding.name == "camera rule":
        if not finding.count:
            return "", None
        share = whole.queries / (whole.queries + finding.count)
        without, said = Metrics(share * whole.rank1, share * whole.mAP, whole.queries + finding.count), \
            "if they counted as not found"
    elif not finding.images:
        return "", None
    else:
        try:
            without, said = score(_leave(embedded, finding.images)), "without them"
        except InputError:
            return "without them nothing is left to score", None
    queries = f", {without.queries} queries" if without.queries != whole.queries else ""
    return (f"{said}: rank-1 {without.rank1:.2f} ({without.rank1 - whole.rank1:+.2f}), mAP {without.mAP:.2f} "
            f"({without.mAP - whole.mAP:+.2f}){queries}"), without


def page(given: argparse.Namespace, frame: pd.DataFrame, findings: Sequence[Finding], embedded: Embedded | None,
         whole: Metrics | None, effects: dict[str, tuple[str, Metrics | None]], excluded: Excluded | None
         ) -> list[str]:
    """The lines that are printed."""
    counts = ", ".join(f"{split} {len(part)} pictures of {part['pid'].nunique()} people"
                       for split, part in frame.groupby("split"))
    text = [f"{given.data}: {counts}"]
    if whole is not None:
        text.append(f"as it stands: rank-1 {whole.rank1:.2f}, mAP {whole.mAP:.2f} over {whole.queries} queries")
    text += [] if excluded is None else [excluded.sentence()]
    text.append("")
    for finding in findings:
        said = effects[finding.name][0]
        text.append(f"{finding.name}: {finding.said}")
        text += [f"    {said}"] if said else []

    if not any(finding.name.startswith("identical") for finding in findings):
        text.append("identical pictures: not looked for, the folder of the pictures is not known; give --images")
    if embedded is None:
        text.append("hubs, lengths, and what each line does to the metrics: not measured; give --features")
    else:
        matching = embedded.matching
        text += ["", protocol_line([embedded.provenance | {"distance": matching.distance,
                                                           "reduction": matching.reduction}])]
    return text


def content(findings: Sequence[Finding], whole: Metrics | None, effects: dict[str, tuple[str, Metrics | None]],
            excluded: Excluded | None) -> dict[str, Any]:
    """What --json holds: each finding with all of its pictures."""
    def told(metrics: Metrics | None) -> dict[str, Any] | None:
        return None if metrics is None else {"rank1": round(metrics.rank1, 4), "mAP": round(metrics.mAP, 4),
                                             "queries": metrics.queries}

    return {"metrics": told(whole), "ignored": excluded and excluded.content(),
            "findings": [{"name": finding.name, "count": finding.count, "said": finding.said,
                          "images": sorted(finding.images), "changed": told(effects[finding.name][1])}
                         for finding in findings]}


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="INDEX_OR_DATASET", help="an index (.csv), its key, or a features file")
    parser.add_argument("--features", type=Path, metavar="F", help="features of its queries and gallery")
    parser.add_argument("--images", type=Path, help="the folder of its pictures (data/raw/KEY, where that is there)")
    parser.add_argument("--ignore", type=Path, metavar="IGNORE.csv",
                        help="leave these pictures out: a CSV of path, reason")
    parser.add_argument("--distance", choices=["cosine", "euclidean"], help="of others' parts' features (cosine)")
    parser.add_argument("--reduction", choices=["mean", "sum"], help="over others' parts (mean)")
    parser.add_argument("--json", type=Path, help="write the findings here too, with all of their pictures")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    given = parse_arguments(words)
    with sentences():
        run(given)


if __name__ == "__main__":
    main()
