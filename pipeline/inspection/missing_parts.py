"""Missing parts: which crops' parses lack a head, torso, arms, legs or feet, and whether a data set's lack more of them
than a good parse of such people does.

A part is missing where it has a smaller share of the person's pixels than its `least`, which follows from what whole
rendered people show by their exact labels. good_parse.json has these shares and what the exact labels themselves lack,
for either taxonomy; `python -m benchmarks.good_parse` makes it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.body_parts import PARTS8

TABLE = Path(__file__).with_name("good_parse.json")
GROUPS = {"head": ("head",), "torso": ("torso",), "arms": ("upper-arm", "lower-arm"),
          "legs": ("upper-leg", "lower-leg"), "feet": ("foot",)}
PERSON = "person"  # a share of the frame, where the groups' are shares of the person
# `least` is so much of the 1st percentile of whole rendered people. Chosen by eye, on the default parser's parses of a
# real set: heads, arms, legs and feet between a half and the whole of it are there and small, torsos and people are not
# there but for scraps.
PERCENTILE_FACTORS = {PERSON: 1.0, "head": 0.5, "torso": 1.0, "arms": 0.5, "legs": 0.5, "feet": 0.5}
PEOPLE = {"whole": "synth-holistic", "occluded": "synth-occluded", "partial": "synth-partial"}  # the set that has them
FAULTS = {"no_person": "without a person", "hardly_person": "with hardly a person", "no_head": "without a head",
          "no_torso": "with hardly a torso", "no_arms": "without arms", "no_legs": "without legs",
          "no_feet": "without feet", "not_upright": "with head, torso and feet out of order",
          "sides_exchanged": "with left and right exchanged"}
MARGIN = 0.02  # so much more than a good parse's share may come of other poses, clothes and boxes
ERRORS = 3  # standard errors of the difference of two shares that may come of chance
PROPORTIONS = (1.0, 1.5, 2.5, 3.5)  # heights / widths between which classes of crops lie; a whole person's is about 2


def part_shares(areas: np.ndarray) -> dict[str, np.ndarray]:
    """Areas (N, 8), shares of the frame -> the person's share of the frame (N,), and of the person's pixels each
    group's share (N,), 0 where there is nobody; nan where areas are."""
    person = areas[:, 1:].sum(1)
    sums = {group: areas[:, [PARTS8.index(part) for part in parts]].sum(1) for group, parts in GROUPS.items()}
    return {PERSON: person, **{group: np.divide(area, person, out=np.where(np.isnan(person), np.nan, 0.0),
                                                where=person > 0) for group, area in sums.items()}}


def least_shares(areas: np.ndarray) -> dict[str, float]:
    """Areas (N, 8) of whole people -> the share below which a person or a part counts as missing.

    0 where whole people may lack the part, as LIP-20's arms in sleeves, which are torso: then nobody is judged by it.
    """
    return {name: round(float(np.percentile(shares, 1)) * PERCENTILE_FACTORS[name], 4)
            for name, shares in part_shares(areas).items()}


def faults(areas: np.ndarray, upright: np.ndarray, sides: np.ndarray, least: Mapping[str, float]
           ) -> dict[str, np.ndarray]:
    """FAULTS of each image (N,): 1 has it, 0 has not, nan where it cannot be judged. upright, sides: as in `Seen`.

    Who has no person lacks every part, and is not counted as hardly one.
    """
    shares = part_shares(areas)
    unknown = np.isnan(shares[PERSON])
    nobody = shares[PERSON] == 0

    found = {"no_person": nobody, "hardly_person": ~nobody & (shares[PERSON] < least[PERSON])}
    for group in GROUPS:
        lacking = nobody | (shares[group] < least[group])
        found[f"no_{group}"] = lacking if least[group] else np.full(len(areas), np.nan)

    return {**{name: np.where(unknown, np.nan, flags) for name, flags in found.items()},
            "not_upright": 1 - upright, "sides_exchanged": 1 - sides}


def fault_shares(flags: Mapping[str, np.ndarray], chosen: np.ndarray | slice = slice(None)
                 ) -> dict[str, dict[str, Any]]:
    """Of the chosen images: by fault how many were `judged` and which `share` of these has it, None where none was."""
    judged = {name: values[chosen][~np.isnan(values[chosen])] for name, values in flags.items()}
    return {name: {"judged": len(values), "share": round(float(values.mean()), 4) if len(values) else None}
            for name, values in judged.items()}


def proportion_classes(proportions: np.ndarray) -> dict[str, np.ndarray]:
    """Height / width (N,), nan unknown -> by class the images (N,) bool that are in it; classes without any left out.

    >>> {name: members.tolist() for name, members in proportion_classes(np.array([2.0, 0.9, 2.49])).items()}
    {'below 1': [False, True, False], '1.5 to 2.5': [True, False, True]}
    """
    edges = [0.0, *PROPORTIONS, math.inf]
    names = [f"below {PROPORTIONS[0]:g}", *(f"{low:g} to {high:g}" for low, high in
                                            zip(PROPORTIONS, PROPORTIONS[1:], strict=False)),
             f"from {PROPORTIONS[-1]:g}"]
    inside = [(proportions >= low) & (proportions < high) for low, high in zip(edges, edges[1:], strict=False)]
    return {name: members for name, members in zip(names, inside, strict=True) if members.any()}


def good_parse(taxonomy: str) -> dict[str, Any]:
    """`least`: each share below which a part is missing; by kind of PEOPLE the `fault_shares` of their exact labels."""
    return json.loads(TABLE.read_text(encoding="utf-8"))[taxonomy]


def worse(found: Mapping[str, Mapping[str, Any]], good: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the faults that are more frequent than in a good parse: by more than MARGIN, and by more than ERRORS
    standard errors of the difference of two shares. What either could not judge is not compared."""
    return [name for name in FAULTS
            if found[name]["judged"] and good[name]["judged"] and _worse(found[name], good[name])]


def _worse(found: Mapping[str, Any], good: Mapping[str, Any]) -> bool:
    n, m = found["judged"], good["judged"]
    pooled = (found["share"] * n + good["share"] * m) / (n + m)
    chance = ERRORS * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return found["share"] - good["share"] > max(MARGIN, chance)


def verdict(found: Mapping[str, Mapping[str, Any]], good: Mapping[str, Mapping[str, Any]], people: str) -> str:
    """One sentence: like a good parse of such people, or worse and in what. people: one of PEOPLE."""
    if not found["no_person"]["judged"]:
        return "none: no crop was parsed"
    names = worse(found, good)
    if not names:
        return f"like a good parse of {people} people"

    said = [f"{found[name]['share']:.1%} {FAULTS[name]} where a good parse has {good[name]['share']:.1%}"
            for name in names]
    return f"worse than a good parse of {people} people: {'; '.join(said)}"
