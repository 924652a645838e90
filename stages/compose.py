"""Compose params.yaml from a profile: python -m stages.compose default

A profile says what stands in `profiles/<name>.yaml`; `include` takes in other files first, `like` copies a recipe.
Names become `<scale>-<name>`, the paths DVC needs are filled in, every key gets its comment, and data sets that are not
on this machine are left out together with what needs them. Hand edits in params.yaml stop it, named one by one;
`--check` writes nothing and only says whether params.yaml is what its profile gives.
"""

import argparse
import copy
import dataclasses
import hashlib
import json
import sys
import typing
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.params import CHOICES, EXTERNAL, ModelParams, Params, cache_file, figure_files, in_places, label_file
from pipeline.params_file import concrete, parse
from stages.tables import only_read, paper_tables, table_runs
from stages.trials import by_trial

PROFILES = Path("profiles")
SCALES = ("default", "ci", "paper")


def compose(profile: str) -> dict[str, Any]:
    """The tree of params.yaml for a profile. InputError names the profile and what is wrong in it."""
    source = _load(profile)
    scale, recipes = source.pop("scale"), source.pop("recipes", {})
    wanted = source.pop("rows", None)
    if wanted is not None:
        for section, entries in table_runs(wanted).items():
            source[section] = _merge(source.get(section), entries)
    sweeps = source.pop("sweeps", None) or {}
    runs = {name: _like(entry, recipes) for name, entry in (source.pop("runs", None) or {}).items()}
    full = {section: {name: _like(entry, recipes) for name, entry in (source.pop(section, None) or {}).items()}
            for section in ("render", "datasets", "occlude", "parsers", "caches", "warps", "report", "figures")}
    trials = {name: entry["trials"] for name, entry in full["datasets"].items() if "trials" in entry}
    runs, full = by_trial(runs, trials), {section: by_trial(entries, trials) for section, entries in full.items()}
    tree: dict[str, Any] = {"scale": scale, **source}
    tree["render"] = _keyed(scale, full["render"])
    tree["datasets"] = {key: {"layout": entry["layout"], "raw": entry.get("raw", f"data/raw/{key}")}
                        for key, entry in _keyed(scale, full["datasets"]).items()
                        if key in tree["render"] or Path(entry["raw"]).is_dir()}
    tree["occlude"] = {key: {**entry, "dataset": (shown := _key(scale, entry["dataset"])),
                             "images": tree["datasets"][shown]["raw"]}
                       for key, entry in _keyed(scale, full["occlude"]).items()
                       if _key(scale, entry["dataset"]) in tree["datasets"]}
    tree["datasets"] |= {key: {"layout": "market", "raw": f"data/raw/{key}"} for key in tree["occlude"]}
    parsers = _keyed(scale, full["parsers"])
    tree["parsers"] = {key: {**entry, "data": _key(scale, entry["data"])}
                       for key, entry in parsers.items() if "layout" not in entry}
    tree["photographs"] = {key: entry for key, entry in parsers.items()
                           if "layout" in entry and Path(entry["raw"]).is_dir()}
    absent = parsers.keys() - tree["parsers"].keys() - tree["photographs"].keys()
    caches = dict(_caches(scale, full["caches"], tree["datasets"], absent))
    tree["caches"] = {key: entry for key, entry in caches.items() if entry["parser"] not in EXTERNAL}
    tree["external"] = {key: entry for key, entry in caches.items() if entry["parser"] in EXTERNAL}
    tree["warps"] = {key: {**entry, "dataset": _key(scale, entry["dataset"]),
                           "parts": _key(scale, entry.get("parts", entry["dataset"])),
                           "images": tree["datasets"][_key(scale, entry["dataset"])]["raw"]}
                     for key, entry in _keyed(scale, full["warps"]).items()
                     if _key(scale, entry["dataset"]) in tree["datasets"]}
    tree["runs"], tree["embed"], tree["evaluate"] = _runs(scale, runs, tree["datasets"], tree["render"])
    tree["report"] = {key: {**entry, "pictures": (shown := _key(scale, entry["pictures"])),
                            "dataset": tree["warps"][shown]["dataset"], "images": tree["warps"][shown]["images"],
                            "parser": _key(scale, entry["parser"])}
                      for key, entry in _keyed(scale, full["report"]).items()
                      if _key(scale, entry["pictures"]) in tree["warps"]}
    folders = {name: entry.get("raw", f"data/raw/{name}") for name, entry in full["datasets"].items()}
    tables = paper_tables(wanted, scale=scale, datasets=folders, tree=tree) if wanted else ({}, {})
    tree = tree if wanted is None else only_read(tree)
    tree["tables"], tree["tables_page"] = tables
    tree["sweeps"] = dict(_sweeps(scale, sweeps, tree["embed"]))
    tree["figures"] = dict(_figures(scale, full["figures"], _keyed(scale, runs), tree))
    parse(Params, tree, "")
    return tree


def _load(profile: str) -> dict[str, Any]:
    path = PROFILES / f"{profile}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml")))
        raise InputError(f"{path}: no such profile; there are {known}")
    source = yaml.safe_load(path.read_text(encoding="utf-8"))
    merged: dict[str, Any] = {}
    for name in source.pop("include", []):
        merged = _merge(merged, _load(name))
    return _merge(merged, source)


def _merge(base: Any, over: Any) -> Any:
    """`over` over `base`, key by key; a key that is null in `over` is taken out, and another model replaces one."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return copy.deepcopy(over)
    result = copy.deepcopy(base)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        else:
            old = result.get(key)
            renamed = key == "model" and old and "name" in old.keys() & value.keys() and old["name"] != value["name"]
            result[key] = copy.deepcopy(value) if renamed else _merge(old, value)
    return result


def _like(entry: dict[str, Any], recipes: dict[str, Any]) -> dict[str, Any]:
    entry = dict(entry)
    name = entry.pop("like", None)
    if name is None:
        return entry
    if name not in recipes:
        raise InputError(f"like: {name}: no such recipe; there are {', '.join(recipes)}")
    return _merge(_like(recipes[name], recipes), entry)


def _key(scale: str, name: str) -> str:
    """The key of a name; a name that says a scale already is one (the ci scale borrows the default's parser)."""
    return name if name.startswith(tuple(f"{known}-" for known in SCALES)) else f"{scale}-{name}"


def _keyed(scale: str, section: dict[str, Any]) -> dict[str, Any]:
    return {_key(scale, name): entry for name, entry in section.items()}


def _caches(scale: str, section: dict[str, Any], datasets: dict[str, Any], absent: set[str]
            ) -> typing.Iterator[tuple[str, Any]]:
    """The caches of data sets that are there; `absent`: parsers that cannot be trained here, their photographs
    missing. `source` is a file or folder of the user's, else the weights of the parser that `weights` names."""
    for key, entry in _keyed(scale, section).items():
        dataset = _key(scale, entry["dataset"])
        trained = _key(scale, entry.pop("weights", ""))
        if dataset not in datasets or ("source" not in entry and trained in absent):
            continue
        raw = datasets[dataset]["raw"]
        given = f"{raw}/labels.h5" if entry["parser"] == "oracle" else f"parsers/{trained}/weights.safetensors"
        source = entry.pop("source", given)
        if entry["parser"] in EXTERNAL:
            entry["reads"] = (entry.pop("config", "") if entry["parser"] == "densepose"
                              else label_file(entry.get("labels", ""), source))
        yield key, {**entry, "dataset": dataset, "source": source, "images": raw}


def _runs(scale: str, section: dict[str, Any], datasets: dict[str, Any], rendered: dict[str, Any]
          ) -> tuple[dict, dict, dict]:
    """The runs, and embed and evaluate entries of each result: a run's own, one `of` a run matched otherwise, or one
    of several runs that are trials of one protocol.

    A result that needs joints is left out on data sets that have none.
    """
    runs, embed = {}, {}
    evaluate: dict[str, dict[str, Any]] = {}
    for key, entry in _keyed(scale, section).items():
        whole = _merge(section[entry["of"]], entry) if "of" in entry else dict(entry)
        train_on = _key(scale, whole["train_on"])
        if train_on not in datasets:
            continue
        run = _key(scale, whole.pop("of", key))
        result = _key(scale, entry.get("result", key))
        whole.pop("result", None)
        model = parse(ModelParams, whole["model"], f"runs.{key}.model")
        eval_on, match, dtype = whole.pop("eval_on"), whole.pop("match"), whole.pop("features_dtype")
        if run == key:
            cached = cache_file(model, None)
            cache = _key(scale, whole.pop("cache", whole["train_on"])) if cached else "none"
            reads = f"data/cache/{cache}/{cached}" if cached else datasets[train_on]["raw"]
            runs[key] = {**whole, "train_on": train_on, "cache": cache, "reads": reads}
            runs[key].pop("visible_by", None)
        cached, pairs = cache_file(model, match["features"]), {}
        for name in eval_on:
            data = _key(scale, name)
            if data in datasets:
                visible_by = _visible_by(whole.get("visible_by", ""), scale, datasets[data]["raw"], data in rendered)
                if visible_by.endswith(".joints.h5") and not Path(visible_by).is_file():
                    continue
                pairs[f"{key}-on-{name}"] = {
                    "run": run, "result": result, "model": whole["model"]["name"], "dataset": data,
                    "batch": whole["batch"], "dtype": dtype, "match": match,
                    "reads": (reads := f"data/cache/{data}/{cached}" if cached else datasets[data]["raw"]),
                    "visible_by": visible_by or reads}
        embed.update(pairs)
        if pairs:
            evaluate.setdefault(result, {"scale": scale, "features": []})["features"] += pairs
    return runs, embed, evaluate


def _figures(scale: str, section: dict[str, Any], runs: dict[str, Any], tree: dict[str, Any]
             ) -> typing.Iterator[tuple[str, Any]]:
    """The figures of `section` whose data sets, and whose runs' data sets, are on this machine."""
    for key, entry in _keyed(scale, section).items():
        datasets, shows = ([_key(scale, name) for name in entry[field]] for field in ("datasets", "shows"))
        unknown = [name for name in shows if name not in runs]
        if unknown:
            raise InputError(f"figures.{key}.shows: {unknown[0]!r} is no run of this profile; it has {', '.join(runs)}")
        trained = [_key(scale, runs[name].get("of", name)) for name in shows]
        if set(datasets) <= tree["datasets"].keys() and set(trained) <= tree["runs"].keys():
            datasets = [*datasets, datasets[-1]][:max(2, len(datasets))]
            yield key, {**entry, "shows": shows, "datasets": datasets,
                        "model": tree["runs"][trained[-1]]["model"]["name"],
                        "images": [tree["datasets"][name]["raw"] for name in datasets],
                        "reads": figure_files(entry["kind"], shows, scale=scale, dataset=datasets[-1])}


def _visible_by(source: str, scale: str, raw: str, rendered: bool) -> str:
    """joints: a rendered set's labels.h5, or a file beside a real set's folder; another word: that run's weights."""
    if not source:
        return ""
    joints = f"{raw}/labels.h5" if rendered else f"{raw}.joints.h5"  # in the folder it would make trainings stale
    return joints if source == "joints" else f"runs/{_key(scale, source)}/weights.safetensors"


def _sweeps(scale: str, section: dict[str, Any], embed: dict[str, Any]) -> typing.Iterator[tuple[str, Any]]:
    """The sweeps that have a result on their data set for each value."""
    for key, entry in _keyed(scale, section).items():
        results = [_key(scale, name) for name in entry["results"]]
        if all(f"{result}-on-{entry['dataset']}" in embed for result in results):
            yield key, {**entry, "dataset": _key(scale, entry["dataset"]),
                        "trained_on": _key(scale, entry["trained_on"]), "results": results,
                        "reads": in_places("sweep", [f"metrics/{scale}/{result}.json" for result in results])}


def fingerprint(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def hand_edits(path: Path) -> list[str]:
    """What stands in `path` and was not composed, as `a.b: 1 -> 2` lines; empty if nothing was edited."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    if text.splitlines()[0].split()[-1] == fingerprint(tree):
        return []
    return list(_differences(compose(composed_from(path)), tree, "")) or ["the first line"]


def composed_from(path: Path) -> str:
    """The profile that `path` says it was composed from. InputError if its first line does not say."""
    words = path.read_text(encoding="utf-8").partition("\n")[0].split()
    if words[:4] != ["#", "composed", "from", "profile"] or len(words) != 6:
        raise InputError(f"{path}: the first line does not name the profile it was composed from; "
                         "`git checkout params.yaml`, or compose with --force")
    return words[4].rstrip(",")


def check(path: Path) -> None:
    """InputError if `path` is not what composing its profile gives."""
    profile = composed_from(path)
    if path.read_text(encoding="utf-8") != as_text(compose(profile), profile):
        raise InputError(f"{path}: is not what profile {profile} gives; run `python -m stages.compose {profile}`")


def _differences(old: Any, new: Any, name: str) -> typing.Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name}: {_scalar(old)} -> {_scalar(new)}"


def as_text(tree: dict[str, Any], profile: str) -> str:
    """params.yaml: the tree, each key with its comment."""
    head = (f"# composed from profile {profile}, {fingerprint(tree)}\n"
            f"# Edit profiles/*.yaml and run `python -m stages.compose {profile}`; edits here stop the next compose.\n")
    return head + "\n".join(_lines(Params, tree, 0)) + "\n"


def _lines(kind: Any, tree: Any, depth: int) -> typing.Iterator[str]:
    indent = "  " * depth
    if kind in CHOICES:
        kind = concrete(kind, tree, "")
    typed = dataclasses.is_dataclass(kind)
    for key, value in tree.items():
        comment, inner = "", typing.get_args(kind)[1] if not typed else None
        if typed:
            matching = next(item for item in dataclasses.fields(kind) if item.name == key)
            inner = typing.get_type_hints(kind)[key]
            comment = f"  # {matching.metadata['doc']}" if matching.metadata["doc"] else ""
        if isinstance(value, dict) and value:
            yield f"{indent}{_scalar(key)}:{comment}"
            yield from _lines(inner, value, depth + 1)
        else:
            yield f"{indent}{key}: {_scalar(value)}{comment}"


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    return json.dumps(value) if not isinstance(value, str) else value if _plain(value) else json.dumps(value)


def _plain(text: str) -> bool:
    return bool(text) and yaml.safe_load(text) == text and not set(text) & set(",:[]{}#'\"")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", nargs="?", default="default", help="a file of profiles/ without its ending")
    parser.add_argument("--force", action="store_true", help="overwrite hand edits")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if params.yaml is stale")
    arguments = parser.parse_args()
    path = Path("params.yaml")
    try:
        if arguments.check:
            check(path)
            return
        tree = compose(arguments.profile)
        edits = [] if arguments.force else hand_edits(path)
        if edits:
            raise InputError("params.yaml was edited by hand: " + "; ".join(edits) + "; take the edits into profiles/, "
                             "`git checkout params.yaml`, or compose with --force")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(as_text(tree, arguments.profile), encoding="utf-8")
    temporary.replace(path)
    print(f"params.yaml: profile {arguments.profile}, {len(tree['runs'])} runs on "
          f"{len(tree['datasets'])} data sets")


if __name__ == "__main__":
    main()
