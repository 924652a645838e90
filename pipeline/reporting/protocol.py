"""Protocol in one line: under what rules metrics were made, and what the networks behind them were given."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CAMERA_RULE = ("Market-1501's camera rule (gallery images of the query's person and camera are removed, a query with "
               "no match left is skipped)")
LAST = "last epoch, nothing picked on the test set"  # what every training of this project ends with
STARTS = {"none": "random weights", "imagenet": "ImageNet weights", "package": "a package's ImageNet weights"}
REDUCTIONS = {"mean": "mean over parts by visibility", "sum": "sum over parts by visibility"}


def protocol_line(made: Sequence[Mapping[str, Any]], *, average_precision: str = "step sum", reranking: str = "none",
                  seeds: Sequence[int] = ()) -> str:
    """The line of results that were made so: `provenance` of each (empty: features of others).

    average_precision: step sum | trapezoid; reranking: none, or with what; seeds: of all trainings, where more than
    one stand behind a result.

    >>> protocol_line([{}])[-83:]
    'not said by the file: flip at test time, parser, start, pictures seen, seed, epoch.'
    """
    layouts = _listed(str(one["protocol"]) for one in made if one.get("protocol"))
    said = [f"Protocol{f' {layouts}' * bool(layouts)}: {CAMERA_RULE}",
            "distance " + _listed(distance_name(one["distance"], one.get("reduction", "mean")) for one in made
                                  if one.get("distance")),
            f"AP: {average_precision}", f"re-ranking: {reranking}"]
    said += list(dict.fromkeys(left_out(one["ignored"]) for one in made if one.get("ignored")))

    own = [one for one in made if "model" in one]
    if own:
        trained = [one for one in own if one.get("image_steps")]
        flips = ("flip at test time (mean of both features)" if one.get("flip") else "no flip at test time"
                 for one in own)
        said += [_listed(flips), f"parser: {_listed(parsers(own)) or 'none'}"]
        if trained:
            numbers = sorted({*seeds, *(one["seed"] for one in trained)})
            said += [f"start: {_listed(start(one['init']) for one in trained)}",
                     f"pictures seen: {_listed(format(one['image_steps'], ',') for one in trained)}",
                     f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}", LAST]
        else:
            said.append("nothing trained")
    if len(own) < len(made):
        said.append("not said by the file: flip at test time, parser, start, pictures seen, seed, epoch")
    return "; ".join(said) + "."


def left_out(ignored: Mapping[str, Any]) -> str:
    """What an exclusion list took out, as a result has it.

    >>> left_out({"file": "data/ignored/mine.csv", "query": 1, "gallery": 2, "reasons": {"two people": 3}})
    '1 query and 2 gallery images left out by data/ignored/mine.csv (3 two people)'
    """
    why = "; ".join(f"{count} {reason}" for reason, count in ignored["reasons"].items())
    return (f"{ignored['query']} quer{'y' if ignored['query'] == 1 else 'ies'} and {ignored['gallery']} gallery "
            f"image{'s' * (ignored['gallery'] != 1)} left out by {ignored['file']} ({why})")


def distance_name(distance: str, reduction: str) -> str:
    """
    >>> distance_name("cosine", "mean")
    'cosine, mean over parts by visibility'
    """
    return f"{distance}, {REDUCTIONS.get(reduction, reduction)}"


def start(init: str) -> str:
    """What a training began from, in words.

    >>> start("none"), start("run:sorn"), start("package")
    ('random weights', 'the weights of sorn', "a package's ImageNet weights")
    """
    if init in STARTS:
        return STARTS[init]
    return f"the weights of {init.removeprefix('run:')}" if init.startswith("run:") else f"weights {init}"


def parsers(made: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which parsers made what runs read, in words, each once; none where they read no cache.

    >>> parsers([{"caches": {"a/parts.h5": {"maker": {"parser": "deeplabv3", "source_sha256": "01ab" * 16,
    ...                                               "exact": False}}}}])
    ['deeplabv3 (weights 01ab01ab01ab, its 8 parts approximate)']
    """
    found = []
    for one in made:
        for cache in (one.get("caches") or {}).values():
            maker = cache["maker"].get("parts", cache["maker"])  # a warp's is that of the u,v it was made by
            if not maker:
                continue
            weights = str(maker.get("source_sha256", "unknown"))[:12]
            found.append(f"{maker.get('parser')} (weights {weights}"
                         f"{'' if maker.get('exact') else ', its 8 parts approximate'})")
    return list(dict.fromkeys(found))


def _listed(values: Iterable[str]) -> str:
    """Each once, with "or" between."""
    return " or ".join(dict.fromkeys(values))
