"""The papers' pictures of a profile's section `figures`, as plan.yaml has them: which files each is drawn from."""

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.known import Known, find
from pipeline.config.names import known_name
from pipeline.config.profiles import Entry, take

SECTIONS = {"lists": "figure_lists", "patched_lists": "figure_patches", "aggregation": "figure_maps",
            "entropy": "figure_maps", "masks": "figure_masks"}
SHOWN = {"lists": 2, "patched_lists": 2, "aggregation": 1, "entropy": 1, "masks": 3}  # results or runs of each kind


def figure_plans(figures: dict[str, Entry], known: Known, experiment: str) -> dict[str, dict[str, Entry]]:
    """plan.yaml's sections of figures, without those whose data set, runs or results are left out.

    InputError names the entry and what is wrong in it.
    """
    plans: dict[str, dict[str, Entry]] = {section: {} for section in dict.fromkeys(SECTIONS.values())}
    for key, figure in figures.items():
        place = f"figures.{key}"
        kind = known_name(take(figure, "kind", place), SECTIONS, f"{place}.kind", "kind of figure")
        shows, names, number, title, wanted = (
            take(figure, field, place) for field in ("shows", "names", "count", "title", "dataset"))
        if len(shows) != SHOWN[kind] or len(names) != len(shows) or number < 1:
            raise InputError(f"{place}: shows {len(shows)} under {len(names)} names and {number} queries; {kind} takes "
                             f"{SHOWN[kind]}, a name for each, and at least one query")

        dataset = find(known, "datasets", wanted, f"{place}.dataset")
        drawn = _drawn_from(kind, shows, names, wanted, known, experiment, place) if dataset else None
        if dataset is None or drawn is None:
            continue
        data = known.datasets[dataset]
        plans[SECTIONS[kind]][key] = {"title": title, "count": number, "dataset": dataset,
                                      "index": paths.index(dataset).as_posix(), "raw": data.raw,
                                      "rendered": data.rendered} | drawn
    return plans


def _drawn_from(kind: str, shows: list[str], names: list[str], dataset: str, known: Known, experiment: str,
                place: str) -> Entry | None:
    """What a figure shows and the files that it needs of that; None where something of it is left out."""
    section = "results" if kind.endswith("lists") else "runs"
    if None in [find(known, section, name, f"{place}.shows") for name in shows]:
        return None
    if section == "results":
        for name in shows:
            if f"embeddings.{name}-on-{dataset}" in known.dropped:
                return None
            if dataset not in known.results[name]:
                raise InputError(f"{place}.dataset: {name} is not scored on {dataset!r}; it is on "
                                 f"{', '.join(known.results[name]) or 'none'}")
        first, second = (paths.ranks(experiment, name).as_posix() for name in shows)
        patches = {"features": paths.features(shows[-1], dataset).as_posix()} if kind == "patched_lists" else {}
        trained = [known.runs[known.result_runs[name]].train_on for name in shows]
        return {"shows": shows, "trained_on": trained, "names": names, "first": first, "second": second} | patches

    trained = [known.runs[name].train_on for name in shows]
    weights = [paths.weights(name).as_posix() for name in shows]
    if kind == "masks":
        files = dict(zip(("full", "hard", "external"), weights, strict=True))
        return {"shows": shows, "trained_on": trained, "names": names} | files
    return {"kind": kind, "shows": shows[0], "trained_on": trained[0], "name": names[0],
            "model": known.runs[shows[0]].model["name"], "weights": weights[0]}
