"""Wiring of an experiment, as plan.yaml has it: which stages there are, and which files each reads.

dvc.yaml templates from it and nobody edits it; pipeline/config/compose.py writes it from the same profile as
params.yaml. Keys are stages of dvc.yaml; an entry's key is the stage's (`train@sorn`). Paths are relative to the
project's root, folders of the user's data as the profile has them.
"""

from dataclasses import dataclass
from pathlib import Path

EMBED = ("embed", "embed_two", "embed_three")  # the stages that embed one, two, three data sets
TRAIN = ("train", "train_file", "train_from")  # the stages that train, by what they start from
EMBED_SEEN = "embed_seen"  # and one, where something else says what is seen


def cache_among(reads: str) -> Path | None:
    """The cache file that a run or an embedding reads; None where it reads images alone.

    >>> cache_among("data/cache/market/parts.h5").name, cache_among("data/raw/market")
    ('parts.h5', None)
    """
    return Path(reads) if reads.endswith(".h5") else None


@dataclass(frozen=True)
class FolderPlan:
    raw: str  # the folder of images


@dataclass(frozen=True)
class StartedParserPlan(FolderPlan):
    start: str  # the weight file that it starts from; of photographs, where it starts from none, `raw` again


@dataclass(frozen=True)
class TaughtPlan:
    rendered: str  # the folder of a rendered set
    raw: str  # the folder of photographs
    teacher: str  # the parts.h5 of the same photographs that divides them
    start: str  # the weight file that it starts from; where it starts from none, `rendered` again


@dataclass(frozen=True)
class PreparePlan(FolderPlan):
    needs: tuple[str, ...] = ()  # train | test: the images that the experiment's runs train and are scored on


@dataclass(frozen=True)
class IgnorePlan:
    index: str
    list: str  # a CSV of the user's, path and reason: pictures that scoring leaves out


@dataclass(frozen=True)
class LinkPlan:
    path: str  # what a user put or linked under data/


@dataclass(frozen=True)
class FetchPlan:
    repository: str  # of the Hub
    revision: str  # its commit


@dataclass(frozen=True)
class OccludePlan:
    index: str
    raw: str


@dataclass(frozen=True)
class ParsePlan:
    dataset: str
    index: str
    raw: str
    source: str  # the parser's weights; the oracle's labels.h5; a checkpoint or parses from outside


@dataclass(frozen=True)
class DescribedParsePlan(ParsePlan):
    description: str  # a file beside the source that says what it is: DensePose's configuration, a label map


@dataclass(frozen=True)
class CropsPlan(ParsePlan):
    cache: str  # whose parser it is, and whose maps say what is cropped
    owner: str  # the experiment that has that cache
    parts: str  # its parts.h5
    train_index: str  # the training set, over which the medians are taken
    train_parts: str  # its parts.h5, of the same parser


@dataclass(frozen=True)
class DescribedCropsPlan(CropsPlan, DescribedParsePlan):
    pass


@dataclass(frozen=True)
class WarpPlan:
    dataset: str
    index: str
    raw: str
    parts: str  # the parts.h5 whose u,v it is warped by


@dataclass(frozen=True)
class JointsPlan:
    dataset: str
    index: str
    raw: str
    source: str  # a checkpoint, or key points that others made


@dataclass(frozen=True)
class TrainPlan:
    model: str
    train_on: str
    cache: str
    index: str
    raw: str
    reads: str  # what training depends on beside the index: the cache, which holds its images' hashes, or the images


@dataclass(frozen=True)
class StartedTrainPlan(TrainPlan):
    start: str  # the run whose weights it starts from
    weights: str  # their file


@dataclass(frozen=True)
class FileTrainPlan(TrainPlan):
    file: str  # a user's weights, which the backbone starts from


@dataclass(frozen=True)
class TestSet:
    """A data set on which a result is scored."""

    dataset: str
    index: str
    raw: str
    reads: str  # beside weights and index: a cache, or the images
    protocol: str  # its layout, which says how it is scored


@dataclass(frozen=True)
class EmbedPlan:
    result: str
    run: str
    model: str
    weights: str
    sets: tuple[TestSet, ...]  # one stage embeds them all; dvc.yaml names the files of each


@dataclass(frozen=True)
class SeenEmbedPlan(EmbedPlan):
    seen_by: str  # what says which stripes show the body: joints, or the weights of a run that segments (SORN +P, +S)


@dataclass(frozen=True)
class EvaluatePlan:
    features: str  # the folder of features files
    datasets: tuple[str, ...]  # whose files are scored, DATASET.h5 each
    rendered: tuple[str, ...]  # those of them whose people are rendered


@dataclass(frozen=True)
class ListedEvaluatePlan(EvaluatePlan):
    listed: tuple[str, ...]  # those of them with pictures that are left out


@dataclass(frozen=True)
class NeighboursPlan:
    report: str  # which shows them
    result: str
    dataset: str
    features: str  # the features file of that result on that data set


@dataclass(frozen=True)
class ReportPlan:
    title: str
    shows: tuple[str, ...]  # the results whose lists are shown, query by query: of each model the first that is trained
    scores: str  # a parser's scores: its metrics file, or the released weights that carry them
    parsed_on: str  # what it learned from
    cache: str  # the cache whose images, maps and warps are shown
    dataset: str
    index: str
    raw: str


@dataclass(frozen=True)
class RowPlan:
    """A row of a paper's table, on one of its data sets."""

    row: str  # its label, as in docs/papers/tables.csv
    setting: str  # likewise; empty where the table has none
    dataset: str  # likewise: the paper's data set
    result: str  # which result it is here
    seeds: tuple[str, ...]  # the same under further seeds
    data: str  # the data set that it is scored on here
    full: bool  # it is the paper's full model, which the table's other rows are compared with
    missing: str  # the data sets that it lacks here, and what to do; empty where nothing


@dataclass(frozen=True)
class BesidePlan:
    """What stands beside a row of a paper's table: another reading of the paper, or the row on other probes."""

    row: str  # the row: its label, setting and data set, as in docs/papers/tables.csv
    setting: str
    dataset: str
    name: str  # what it is called beside the row
    reading: str  # what it is that the row is not
    result: str
    seeds: tuple[str, ...]
    data: str
    missing: str


@dataclass(frozen=True)
class TablePlan:
    paper: str
    table: str  # its number as the paper prints it
    rows: tuple[RowPlan, ...]
    beside: tuple[BesidePlan, ...] = ()


@dataclass(frozen=True)
class TablesPlan:
    rendered: tuple[str, ...]  # the data sets of rendered people
    networks: dict[str, str]  # result in the tables -> its backbone and the size of its images
    tables: tuple[TablePlan, ...]


@dataclass(frozen=True)
class SweepPlan:
    paper: str
    figure: str
    what: str  # what is swept
    axis: str  # linear | log
    dataset: str  # the data set of the results
    trained_on: str
    printed_on: tuple[str, ...]  # the data sets of the paper's figure in whose place `dataset` stands
    best: tuple[float, ...]  # the value that the paper calls best; empty where it names none
    values: tuple[float, ...]
    results: tuple[str, ...]  # one per value


@dataclass(frozen=True)
class ListsPlan:
    """Retrieval lists of two results, drawn from their rank lists."""

    title: str  # the paper's figure whose place it takes
    shows: tuple[str, ...]  # results
    trained_on: tuple[str, ...]  # the data set of each one's run
    names: tuple[str, ...]  # what the figure calls each of them
    first: str  # their rank lists
    second: str
    count: int  # queries that are drawn
    dataset: str
    index: str
    raw: str
    rendered: bool  # the data set's people are


@dataclass(frozen=True)
class PatchesPlan(ListsPlan):
    """The same, with the last result's visible stripes marked in the queries."""

    features: str  # the last result's features file


@dataclass(frozen=True)
class MapsPlan:
    """What one network sees of some queries."""

    kind: str  # aggregation | entropy
    title: str
    shows: str  # a run
    trained_on: str
    name: str
    count: int
    dataset: str
    index: str
    raw: str
    rendered: bool
    model: str
    weights: str


@dataclass(frozen=True)
class MasksPlan:
    """SORN Fig. 5: the masks of three networks."""

    title: str
    shows: tuple[str, ...]  # three runs: SORN, without label smoothing, the external model
    trained_on: tuple[str, ...]
    names: tuple[str, ...]
    count: int
    dataset: str
    index: str
    raw: str
    rendered: bool
    full: str  # their weights
    hard: str
    external: str


@dataclass(frozen=True)
class Plan:
    name: str  # the experiment
    root: str  # of the project, from the experiment's folder
    folder: str  # the experiment's folder from there, with a slash; empty for the default
    on: tuple[str, ...]  # experiments whose data sets, caches and runs it uses
    owners: dict[str, str]  # the experiment of each run that is another's
    link: dict[str, LinkPlan]
    fetch: dict[str, FetchPlan]
    render: tuple[str, ...]
    prepare: dict[str, PreparePlan]
    ignore: dict[str, IgnorePlan]
    occlude: dict[str, OccludePlan]
    train_parser: dict[str, FolderPlan]
    train_parser_from: dict[str, StartedParserPlan]
    train_photographs: dict[str, StartedParserPlan]
    train_taught: dict[str, TaughtPlan]
    parse: dict[str, ParsePlan]
    parse_external: dict[str, ParsePlan]
    parse_described: dict[str, DescribedParsePlan]
    parse_crops: dict[str, CropsPlan]
    parse_crops_external: dict[str, CropsPlan]
    parse_crops_described: dict[str, DescribedCropsPlan]
    warp: dict[str, WarpPlan]
    joints: dict[str, JointsPlan]
    train: dict[str, TrainPlan]
    train_file: dict[str, FileTrainPlan]
    train_from: dict[str, StartedTrainPlan]
    embed: dict[str, EmbedPlan]
    embed_two: dict[str, EmbedPlan]
    embed_three: dict[str, EmbedPlan]
    embed_seen: dict[str, SeenEmbedPlan]
    evaluate: dict[str, EvaluatePlan]
    evaluate_listed: dict[str, ListedEvaluatePlan]
    neighbours: dict[str, NeighboursPlan]
    neighbours_listed: dict[str, NeighboursPlan]
    report: dict[str, ReportPlan]
    paper_tables: dict[str, TablesPlan]
    sweep: dict[str, SweepPlan]
    figure_lists: dict[str, ListsPlan]
    figure_patches: dict[str, PatchesPlan]
    figure_maps: dict[str, MapsPlan]
    figure_masks: dict[str, MasksPlan]

    @property
    def trainings(self) -> dict[str, TrainPlan]:
        """Every run that is trained here, whatever it starts from."""
        return {**self.train, **self.train_file, **self.train_from}

    @property
    def evaluations(self) -> dict[str, EvaluatePlan]:
        """Every result that is scored here, whole or without listed pictures."""
        return {**self.evaluate, **self.evaluate_listed}

    @property
    def embeddings(self) -> dict[str, EmbedPlan]:
        """Every result that is embedded here, on however many data sets."""
        return {key: entry for section in (*EMBED, EMBED_SEEN) for key, entry in getattr(self, section).items()}
