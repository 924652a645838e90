"""Runs of an experiment: what each trains on and reads, how it is matched, and what it is embedded on.

A run has a result of its own name. An entry `of` a run is another result of the same weights, matched otherwise. Runs
that are trials of one protocol have one result together. `init: run:KEY` starts a run from another's weights.
"""

import copy
from typing import Any

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.compose_crops import SECTIONS, crops_of
from pipeline.config.known import Composition, Data, Run, check_new, drop, find
from pipeline.config.loader import concrete, parse
from pipeline.config.model_params import ModelParams
from pipeline.config.names import known_name, nearest
from pipeline.config.plan import EMBED, EMBED_SEEN, TRAIN
from pipeline.config.profiles import Entry, check_idle, entries, merge, take
from pipeline.config.schema import file_started_from, started_from
from pipeline.config.trials import by_trial

MATCHED = ("of", "train_on", "eval_on", "match", "features_dtype", "visible_by", "result")  # what `of` may change
MASKS = ("parts.h5", "crops.h5")  # files of caches, or made by their parsers


def add_runs(made: Composition) -> None:
    """Runs and their results. A result that needs joints is left out on data sets that have none."""
    for section in ("crops", "runs", "results"):
        made.params[section] = {}
    for section in (*SECTIONS, *TRAIN, *EMBED, EMBED_SEEN):
        made.plan[section] = {}
    for key, entry in _in_order(by_trial("runs", entries(made.profile, "runs"), made.known.trials)).items():
        _add(made, key, entry)


def _in_order(runs: dict[str, Entry]) -> dict[str, Entry]:
    """Entries as they stand, but none before those whose weights it takes: to start from, as they are, or to say what
    is seen. InputError for a circle."""
    found: dict[str, Entry] = {}

    def put(key: str, within: tuple[str, ...]) -> None:
        if key in within:
            circle = " -> ".join((*within[within.index(key):], key))
            raise InputError(f"runs.{key}: it takes its weights from itself ({circle}); take one of them from another "
                             "run")
        if key in found or key not in runs:
            return
        for other in (started_from(runs[key].get("init")), runs[key].get("of"), runs[key].get("visible_by")):
            if other is not None:
                put(other, (*within, key))
        found[key] = runs[key]

    for key in runs:
        put(key, ())
    return found


def _add(made: Composition, key: str, entry: Entry) -> None:
    place, known = f"runs.{key}", made.known
    result = entry.get("result", key)
    check_new(known, "runs", key, place)
    if result not in made.params["results"]:
        check_new(known, "results", result, place)
    base = find(known, "runs", entry["of"], f"{place}.of") if "of" in entry else key
    if base is None:
        return _drop(made, key, result)

    whole = _of(known.runs[base], entry, place) if "of" in entry else copy.deepcopy(entry)
    whole.pop("result", None)
    train_on = find(known, "datasets", take(whole, "train_on", place), f"{place}.train_on")
    tests = dict.fromkeys(take(whole, "eval_on", place))
    sets = [name for name in tests if find(known, "datasets", name, f"{place}.eval_on") is not None]
    match, dtype = take(whole, "match", place), take(whole, "features_dtype", place)
    seen_by = whole.pop("visible_by", None)
    if train_on is None or (base == key and not _train(made, key, whole, train_on, entry)):
        return _drop(made, key, result)

    made.params["results"][result] = {"match": match, "dtype": dtype}
    if base == key:  # a trial's network is built by its own name, though its result bears another
        made.params["results"][key] = {"match": match, "dtype": dtype}
    known.results.setdefault(result, [])
    known.result_runs[result] = base
    model = parse(ModelParams, known.runs[base].model, f"{place}.model")
    _check_features(match, model, place)
    cached = model.cache_file(match.get("features"))
    if cached == "dsap.h5" and match.get("flip", "none") != "none":
        raise InputError(f"{place}.match.flip: is {match['flip']!r}, and {model.name} matches warps of the body beside "
                         "the image, whose left and right are told apart; take it out")
    named = known.runs[base].entry.get("cache")
    if cached == "dsap.h5" and named not in (None, train_on):
        raise InputError(f"{place}.match.features: is {match['features']!r}, which reads warps, and {base!r} learned "
                         f"from {named!r}; in matching each data set's own are read, another kind. Match another "
                         "feature, or take `cache` out")
    if cached in MASKS and named:
        raise InputError(f"{place}.cache: is {named!r}, and {model.name} reads masks in matching too, of other "
                         f"data sets; name the kind of cache instead, `masks: [KIND]` for DATASET-KIND")
    _embed(made, key, result, base, cached, sets, seen_by, place)
    note_owner(made, base)


def _check_features(match: Entry, model: ModelParams, place: str) -> None:
    """InputError if what is to be matched is nothing that the model has."""
    features = match.get("features")
    if features not in model.matchable():
        raise InputError(f"{place}.match.features: is {features!r}{nearest(features, model.matchable())}; {model.name} "
                         f"matches by {' | '.join(model.matchable())}")


def _drop(made: Composition, key: str, result: str) -> None:
    drop(made.known, "runs", key)
    drop(made.known, "results", result)


def _of(run: Run, entry: Entry, place: str) -> Entry:
    """An entry over that of the run that its `of` names: everything but the training."""
    odd = next((key for key in entry if key not in MATCHED), None)
    if odd is not None:
        raise InputError(f"{place}.{odd}: it takes the weights of {entry['of']!r} as they are; take it out, or train a "
                         "run of its own with `like`")
    train_on = entry.get("train_on", run.train_on)
    if train_on != run.train_on:
        raise InputError(f"{place}.train_on: is {train_on!r}, and {entry['of']!r} is trained on {run.train_on!r}; take "
                         "it out")
    base = {key: value for key, value in run.entry.items() if key in MATCHED and key not in ("result", "visible_by")}
    found: Entry = merge(base, {key: value for key, value in entry.items() if key != "of"})
    check_idle(found.get("match"), f"{place}.match")
    return found


def _train(made: Composition, key: str, entry: Entry, train_on: str, written: Entry) -> bool:
    """A run and its training. False where the cache that it reads, or the run that it starts from, is left out."""
    place, known = f"runs.{key}", made.known
    settings, named, wanted = take(entry, "model", place), entry.pop("cache", None), entry.pop("masks", [])
    kind = concrete(ModelParams, settings, f"{place}.model")
    cached = parse(kind, settings, f"{place}.model").cache_file(None)

    cache, masks, raw = "none", _masks(made, wanted, train_on, place), known.datasets[train_on].raw
    reads = raw
    if named and (wanted or not cached):
        why = "`masks` names one too" if wanted else f"{settings['name']} with these parameters reads none"
        raise InputError(f"{place}.cache: is {named!r}, and {why}; take it out")
    if cached not in MASKS:  # the kinds are named, rightly, and not read
        masks = ""
    if cached:
        section = "caches" if cached in MASKS else "warps"
        found = find(known, section, named or cache_of(train_on, masks), f"{place}.cache")
        if found is None:
            return False
        made_of = known.caches[found].dataset if cached in MASKS else known.warps[found].dataset
        if made_of != train_on:
            raise InputError(f"{place}.cache: {found!r} was made of {made_of!r}, and the run trains on {train_on!r}; "
                             "name a cache of that set")
        cache = found
        if cached == "crops.h5":
            cache = crops_of(made, found, train_on, found, settings, entry, place)
        reads = paths.cache(cache, cached).as_posix()

    file = file_started_from(entry.get("init"))
    section, started = ("train", {}) if file is None else ("train_file", {"file": file})
    start = started_from(entry.get("init"))
    if start is not None:
        if not _can_start(made, start, settings["name"], entry.get("backbone"), f"{place}.init"):
            return False
        section, started = "train_from", {"start": start, "weights": paths.weights(start).as_posix()}

    optimizer = entry.get("optimizer")
    decay = optimizer.get("layer_decay", 1.0) if isinstance(optimizer, dict) else 1.0
    if decay != 1.0 and entry.get("init") == "none":
        raise InputError(f"{place}.optimizer.layer_decay: is {decay}, and with init none no layer is pretrained; take "
                         "it out, or give the run weights to start from")
    made.params["runs"][key] = {**entry, "model": settings, "train_on": train_on, "cache": cache}
    made.plan[section][key] = {"model": settings["name"], "train_on": train_on, "cache": cache,
                               "index": paths.index(train_on).as_posix(), "raw": raw, "reads": reads, **started}
    known.runs[key] = Run(made.name, settings, train_on, masks, written)
    return True


def _can_start(made: Composition, start: str, model: str, backbone: Any, place: str) -> bool:
    """Whether the run `start` is there, for one of this model and backbone to start from its weights; its owner is
    noted. InputError where there is no such run, or it is of another kind. Their shapes are compared in
    stages/compose.py.
    """
    if find(made.known, "runs", start, place) is None:
        return False
    other = made.known.runs[start]
    for what, there, here in (("model", other.model["name"], model),
                              ("backbone", other.entry.get("backbone"), backbone)):
        if there != here:
            raise InputError(f"{place}: the {what} of {start!r} is {there!r}, and this run's is {here!r}; start from a "
                             f"run whose {what} is the same, or from other weights")
    note_owner(made, start)
    return True


def _masks(made: Composition, wanted: list[str], dataset: str, place: str) -> str:
    """The first of the kinds of cache that a run would read, in its order, which the data set has here; else "".

    InputError for a kind that no cache of the data set is, left out here or not.
    """
    there = [kind for kind in wanted
             if find(made.known, "caches", cache_of(dataset, kind), f"{place}.masks: {kind}") is not None]
    return there[0] if there else ""


def cache_of(dataset: str, masks: str) -> str:
    """The name of a data set's cache, or of that of its kind `masks`."""
    return f"{dataset}-{masks}" if masks else dataset


def _embed(made: Composition, key: str, result: str, run: str, cached: str | None, sets: list[str],
           seen_by: str | None, place: str) -> None:
    """One stage, named by the profile's entry, for all data sets; cached: the file that the model reads at test time.

    DVC takes no list as dependencies: dvc.yaml has a stage for one, two and three data sets, and what is more goes to
    further stages, each named with its first. Where something else says what is seen, each data set has its own.
    """
    tests: list[tuple[Entry, str | None]] = []
    for dataset in sets:
        _check_held_out(made, run, dataset, f"{place}.eval_on")
        data, trained = made.known.datasets[dataset], made.known.runs[run]
        section, cache = "caches" if cached in MASKS else "warps", cache_of(dataset, trained.masks)
        seen = _seen_by(made, seen_by, data, f"{place}.visible_by") if seen_by else None
        if (seen_by and not seen) or (cached and not find(made.known, section, cache, f"{place}.eval_on")):
            drop(made.known, "embeddings", f"{result}-on-{dataset}")
            continue

        if cached == "crops.h5":
            cache = crops_of(made, cache, trained.train_on, cache_of(trained.train_on, trained.masks), trained.model,
                             trained.entry, place)
        tests.append(({"dataset": dataset, "index": paths.index(dataset).as_posix(), "raw": data.raw,
                       "reads": paths.cache(cache, cached).as_posix() if cached else data.raw,
                       "protocol": data.layout}, seen))
        made.known.results[result].append(dataset)

    at_once = 1 if seen_by else len(EMBED)
    for first in range(0, len(tests), at_once):
        part = [test for test, _ in tests[first:first + at_once]]
        plan = {"result": result, "run": run, "model": made.known.runs[run].model["name"],
                "weights": paths.weights(run).as_posix(), "sets": part}
        section = EMBED_SEEN if seen_by else EMBED[len(part) - 1]
        name = key if first == 0 else f"{key}-on-{part[0]['dataset']}"
        made.plan[section][name] = plan | ({"seen_by": tests[first][1]} if seen_by else {})


def _check_held_out(made: Composition, run: str, dataset: str, place: str) -> None:
    """InputError where a data set's queries are people held out of a folder's training part, and the run, or one that
    it comes from, trains on them there. People in several folders are compared by their images (stages/embed.py)."""
    tested, other = made.known.datasets[dataset], run
    while tested.hold_out:
        trained_on = made.known.runs[other].train_on
        data = made.known.datasets[trained_on]
        if (data.raw, data.layout) == (tested.raw, tested.layout) and data.hold_out != tested.hold_out:
            who = f"run {run!r}" if other == run else f"run {run!r} comes from {other!r}, which"
            raise InputError(f"{place}: {who} trains on {trained_on!r}, and {dataset!r} asks for {tested.hold_out} of "
                             f"the same training people of {tested.raw!r} (hold_out); train on {dataset!r}, or "
                             "evaluate on another data set")
        start = started_from(made.known.runs[other].entry.get("init"))
        if start is None:
            return
        other = start


def _seen_by(made: Composition, source: str, data: Data, place: str) -> str | None:
    """joints: the data set's file of them, where it has one; else: that run's weights."""
    if source == "joints":
        return data.joints
    if find(made.known, "runs", source, place) is None:
        return None
    model = made.known.runs[source].model
    if model["name"] != "sorn" or not model.get("use_semantic", True):
        raise InputError(f"{place}: is {source!r}, whose network ({model['name']}) segments nothing; name a SORN with "
                         "its semantic branch, or joints")
    note_owner(made, source)
    return paths.weights(source).as_posix()


def note_owner(made: Composition, run: str) -> None:
    """Note whose run it is, where it is another experiment's."""
    owner = made.known.runs[known_name(run, made.known.runs, "runs", "run")].owner
    if owner != made.name:
        made.plan["owners"][run] = owner
