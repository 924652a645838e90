"""Paths of all that is made, each spelt once; relative to the project's root. plan.yaml repeats them for DVC."""

from pathlib import Path

DATA = Path("data")
RAW, INDEX, CACHE, PARSERS = DATA / "raw", DATA / "index", DATA / "cache", DATA / "parsers"
CHECKPOINTS = DATA / "checkpoints"
RUNS, FEATURES, RESULTS, REPORTS = DATA / "runs", DATA / "features", DATA / "results", DATA / "reports"
CURVES, RANKS, NEIGHBOURS = DATA / "curves", DATA / "ranks", DATA / "neighbours"
EXPERIMENTS = Path("experiments")
PARSER_RESULTS = "parsers"  # no experiment's name
QUEUE = (".dvc", "tmp", "exps")  # below it `dvc exp run --temp` and `--queue` make a folder for each job


def main_checkout(here: Path | None = None) -> Path:
    """The way to where git-ignored files lie: the checkout itself, from the folder of a DVC job the one it belongs to.

    >>> main_checkout(Path("/home/me/semalign/.dvc/tmp/exps/tmp0a1b2c")).as_posix(), main_checkout(Path("/home/me"))
    ('/home/me/semalign', PosixPath('.'))
    """
    for folder in (here or Path.cwd()).parents:
        if folder.parts[-3:] == QUEUE:
            return folder.parents[2]
    return Path()


SCRATCH = main_checkout() / "scratch"  # unfinished work, keyed by all that it depends on; outlives a DVC job


def experiment_folder(name: str) -> Path:
    """Where an experiment's params.yaml, plan.yaml and dvc.lock lie: the default's at the root."""
    return Path() if name == "default" else EXPERIMENTS / name


def raw(dataset: str) -> Path:
    """The folder of a data set that the pipeline makes itself; others' folders are named in profiles."""
    return RAW / dataset


def labels(folder: Path | str) -> Path:
    """A rendered set's exact labels."""
    return Path(folder) / "labels.h5"


def joints(folder: Path | str) -> Path:
    """A real set's joints of one's own making: beside its folder, in which they would make trainings stale."""
    return Path(f"{Path(folder).as_posix()}.joints.h5")


def index(dataset: str) -> Path:
    return INDEX / f"{dataset}.csv"


def remarks(dataset: str) -> Path:
    """What `prepare` said of a data set, for who reads its metrics."""
    return INDEX / f"{dataset}.txt"


def ignored(dataset: str) -> Path:
    """Pictures that scoring leaves out, by their keys."""
    return DATA / "ignored" / f"{dataset}.csv"


def cache(key: str, file: str) -> Path:
    """file: parts.h5 | crops.h5 | dsap.h5 | joints.h5."""
    return CACHE / key / file


def checkpoint(key: str) -> Path:
    """A checkpoint that was fetched from the Hub."""
    return CHECKPOINTS / key


def parser_weights(parser: str) -> Path:
    return PARSERS / parser / "weights.safetensors"


def parser_scores(parser: str) -> Path:
    return RESULTS / PARSER_RESULTS / f"{parser}.json"


def weights(run: str) -> Path:
    return RUNS / run / "weights.safetensors"


def train_record(run: str) -> Path:
    return RUNS / run / "train.json"


def trained_on(run: str) -> Path:
    """Which pictures a run, and those whose weights it starts from, were trained on."""
    return RUNS / run / "trained_on.json"


def features(result: str, dataset: str) -> Path:
    return FEATURES / result / f"{dataset}.h5"


def metrics(experiment: str, result: str) -> Path:
    """The folder of a result's metrics, DATASET.json each: so DVC shows a line per data set and not a column."""
    return RESULTS / experiment / result


def curve(experiment: str, result: str) -> Path:
    return CURVES / experiment / f"{result}.csv"


def ranks(experiment: str, result: str) -> Path:
    return RANKS / experiment / f"{result}.csv"


def neighbours(experiment: str, report: str, result: str) -> Path:
    """What a report shows of a result, query by query."""
    return NEIGHBOURS / experiment / report / f"{result}.json"


def report(experiment: str, *parts: str) -> Path:
    """What is made to be looked at: a report's, a table's, a sweep's or a figure's folder."""
    return REPORTS.joinpath(experiment, *parts)
