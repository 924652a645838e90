"""Caches of an experiment: the parsers that are trained for them, the parses of data sets, and warps by their u, v."""

from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.checkpoints import checkpoint_source
from pipeline.config.known import Composition, Parsed, Warped, check_new, drop, find, keeps
from pipeline.config.names import known_name, nearest
from pipeline.config.profiles import Entry, entries, take
from pipeline.config.schema import EXTERNAL
from pipeline.config.trials import by_trial

ORACLE = "oracle"
PARSERS = ("lraspp", "lraspp-reduced", "deeplabv3", ORACLE, *EXTERNAL)


def add_parsers(made: Composition) -> None:
    """Parsers trained on a rendered set (`data`), on labelled photographs in a user's folder (`layout`, `raw`), or on
    a rendered set and the photographs of a `teacher`, a cache."""
    params, plan = made.params, made.plan
    params["parsers"], params["photographs"], params["taught"] = {}, {}, {}
    for section in ("train_parser", "train_parser_from", "train_photographs", "train_taught"):
        plan[section] = {}
    for name, entry in entries(made.profile, "parsers").items():
        place = f"parsers.{name}"
        check_new(made.known, "parsers", name, place)
        if "teacher" in entry:
            _add_taught(made, name, entry, place)
            continue
        if "layout" not in entry:
            data = known_name(take(entry, "data", place), made.known.rendered, f"{place}.data", "rendered set")
            start, reads = _start(entry), {"raw": paths.raw(data).as_posix()}
            section = "train_parser"
            if start:
                section, reads = "train_parser_from", {**reads, "start": start}
            params["parsers"][name], plan[section][name] = entry, reads
            made.known.parsers[name] = data
            continue
        raw = Path(take(entry, "raw", place)).as_posix()
        if not keeps(made, name, raw):
            drop(made.known, "parsers", name)
            continue
        params["photographs"][name] = entry
        plan["train_photographs"][name] = {"raw": raw, "start": _start(entry) or raw}
        made.known.parsers[name] = raw


def _start(entry: Entry) -> str:
    """The file that a parser's training starts from, which DVC has to watch; "" where there is none."""
    start = entry.get("init", "none")
    return start if isinstance(start, str) and start not in ("none", "imagenet") else ""


def _add_taught(made: Composition, name: str, entry: Entry, place: str) -> None:
    """A parser that learns from the photographs of its teacher's data set; left out where that is."""
    data = known_name(take(entry, "data", place), made.known.rendered, f"{place}.data", "rendered set")
    teacher = take(entry, "teacher", place)
    caches = {**{key: parsed.dataset for key, parsed in made.known.caches.items()},
              **{key: cache.get("dataset") for key, cache in per_dataset(entries(made.profile, "caches")).items()}}
    dropped = {key.removeprefix("caches."): None for key in made.known.dropped if key.startswith("caches.")}
    teacher = known_name(teacher, {**caches, **dropped}, f"{place}.teacher", "cache")
    dataset = find(made.known, "datasets", caches[teacher], f"caches.{teacher}.dataset") if teacher in caches else None
    if dataset is None:
        drop(made.known, "parsers", name)
        return
    rendered = paths.raw(data).as_posix()
    made.params["taught"][name] = entry
    made.plan["train_taught"][name] = {"rendered": rendered, "raw": made.known.datasets[dataset].raw,
                                       "teacher": paths.cache(teacher, "parts.h5").as_posix(),
                                       "start": _start(entry) or rendered}
    made.known.parsers[name] = data


def add_caches(made: Composition) -> None:
    """Parses: by the pipeline's own parsers, by parsers from outside, and by those that a user's file describes."""
    made.params["caches"], made.params["external"] = {}, {}
    for section in ("parse", "parse_external", "parse_described"):
        made.plan[section] = {}
    written = per_dataset(entries(made.profile, "caches"))
    for name, entry in by_trial("caches", written, made.known.trials).items():
        place = f"caches.{name}"
        check_new(made.known, "caches", name, place)
        dataset = find(made.known, "datasets", take(entry, "dataset", place), f"{place}.dataset")
        source = _source(made, entry, dataset, place)
        if dataset is None or source is None:
            drop(made.known, "caches", name)
            continue

        plan = {"dataset": dataset, "index": paths.index(dataset).as_posix(), "raw": made.known.datasets[dataset].raw,
                "source": source}
        description = _description(entry, place)
        own = entry["parser"] not in EXTERNAL
        made.params["caches" if own else "external"][name] = entry
        if description:
            made.plan["parse_described"][name] = plan | {"description": description}
        else:
            made.plan["parse" if own else "parse_external"][name] = plan
        made.known.caches[name] = Parsed(made.name, dataset, entry["parser"], source, description)


def per_dataset(written: dict[str, Entry]) -> dict[str, Entry]:
    """Caches with those of several data sets written out: `lip: {datasets: [a, b], ...}` is a-lip and b-lip.

    >>> list(per_dataset({"lip": {"datasets": ["a", "b"], "parser": "deeplabv3"}, "c": {"dataset": "c"}}))
    ['a-lip', 'b-lip', 'c']
    """
    found: dict[str, Entry] = {}
    for name, entry in written.items():
        several = entry.pop("datasets", None)
        for dataset in [None] if several is None else several:
            key = name if dataset is None else f"{dataset}-{name}"
            if key in found or (dataset is not None and (key in written or "dataset" in entry)):
                raise InputError(f"caches.{name}: with `datasets` it makes {key!r}, which is written too, or it has a "
                                 "`dataset` beside; take one out")
            found[key] = {**entry} if dataset is None else {**entry, "dataset": dataset}
    return found


def _source(made: Composition, entry: Entry, dataset: str | None, place: str) -> str | None:
    """The file or folder that a cache's parser is made of; None where it, or what it learns from, is left out."""
    if "parser" not in entry:
        raise InputError(f"{place}.parser: is missing; write it")
    parser = entry["parser"]
    if parser not in PARSERS:
        raise InputError(f"{place}.parser: unknown parser {parser!r}{nearest(parser, PARSERS)}; it is one of "
                         f"{', '.join(PARSERS)}")
    weights, source = entry.pop("weights", None), entry.pop("source", None)
    if source is not None:
        if weights is not None:
            raise InputError(f"{place}: weights is {weights!r} and source is {source!r}, and a cache has one parser; "
                             "take one out")
        return checkpoint_source(made, source, f"{place}.source") if parser == "huggingface" else source
    if parser in EXTERNAL:
        raise InputError(f"{place}.source: is missing; write the file or folder that {parser} reads")
    if parser == ORACLE:
        if entry.get("fit", "stretch") != "stretch":
            raise InputError(f"{place}.fit: is {entry['fit']!r}, and the {ORACLE} sees no images: its labels are of "
                             "whole ones already; take it out")
        if dataset is not None and not made.known.datasets[dataset].rendered:
            raise InputError(f"{place}.parser: is {ORACLE!r}, and {dataset!r} is no rendered set, whose ground truth "
                             "that is; take another parser")
        return paths.labels(made.known.datasets[dataset].raw).as_posix() if dataset else None
    if weights is None:
        raise InputError(f"{place}.weights: is missing; write which of `parsers` it is")
    known = find(made.known, "parsers", weights, f"{place}.weights")
    return paths.parser_weights(known).as_posix() if known else None


def _description(entry: Entry, place: str) -> str | None:
    """The user's file beside the source: DensePose's configuration, or a label map."""
    config = entry.pop("config", None)
    if entry["parser"] == "densepose":
        if config is None:
            raise InputError(f"{place}.config: is missing; write detectron2's configuration file")
        return config
    if config is not None:
        raise InputError(f"{place}.config: is densepose's, and the parser is {entry['parser']}; take it out")
    labels = entry.get("labels")
    return labels if isinstance(labels, str) and labels.endswith((".yaml", ".yml")) else None


def add_warps(made: Composition) -> None:
    made.params["warps"], made.plan["warp"] = {}, {}
    for name, entry in by_trial("warps", entries(made.profile, "warps"), made.known.trials).items():
        place = f"warps.{name}"
        check_new(made.known, "warps", name, place)
        dataset = find(made.known, "datasets", take(entry, "dataset", place), f"{place}.dataset")
        parts = find(made.known, "caches", entry.pop("parts", dataset), f"{place}.parts") if dataset else None
        if dataset is None or parts is None:
            drop(made.known, "warps", name)
            continue
        made_of = made.known.caches[parts].dataset
        if made_of != dataset:
            raise InputError(f"{place}.parts: {parts!r} was made of {made_of!r}, and the warp is of "
                             f"{dataset!r}; name a cache of that set")
        made.params["warps"][name] = entry
        made.plan["warp"][name] = {"dataset": dataset, "index": paths.index(dataset).as_posix(),
                                   "raw": made.known.datasets[dataset].raw,
                                   "parts": paths.cache(parts, "parts.h5").as_posix()}
        made.known.warps[name] = Warped(dataset, parts)
