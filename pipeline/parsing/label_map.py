"""Label maps: what another parser's labels are called here. YAML files, ten of them in pipeline/parsing/label_maps/.

    taxonomy: lip20                 # or densepose24: whose names stand on the right
    void: [255]                     # optional: ids that count as background
    fields: false                   # optional; true: what is named are fields of confidences, none of them background
    labels:                         # one line per id from 0 on: [the parser's name, ours]
      - [background, background]
      - [left-sleeve, left-arm]

With lip20 four more names may stand on the right, where the parser leaves something open: skin, arm, leg, shoe.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from pipeline.base.body_parts import TAXONOMIES
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.parsing.lip_to_parts import OPEN, close_labels, close_probabilities, parts_of

SHIPPED = Path(__file__).with_name("label_maps")


@dataclass(frozen=True)
class LabelMap:
    """names: the parser's labels by id; targets: the id of each in `taxonomy`, or behind its last one an open label;
    void: ids that count as background; fields: the labels are fields of confidences, which may overlap."""

    path: str
    taxonomy: str
    names: tuple[str, ...]
    targets: tuple[int, ...]
    void: tuple[int, ...]
    fields: bool

    def native(self, labels: np.ndarray) -> np.ndarray:
        """The parser's ids (H, W) to ids of `taxonomy`, uint8. ValueError names an id that the map lacks."""
        known = np.isin(labels, self.void) | (labels < len(self.names))
        if not known.all():
            raise ValueError(f"holds the label {int(labels[~known].max())} where {self.path!r} knows "
                             f"{len(self.names)} labels; name the label map it was made with")

        void = np.isin(labels, self.void)
        opened = np.array(self.targets, np.uint8)[np.where(void, 0, labels)]
        opened[void] = 0
        return close_labels(opened) if self.taxonomy == "lip20" else opened

    def parts(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The parser's probabilities (C, H, W) -> native (H, W) uint8, and probabilities of the 8 parts (8, H, W) and
        of background + 4 parts (5, H, W). `native` is the most probable label of the taxonomy (of open ones the most
        probable meaning)."""
        summed = np.zeros((self._count(), *probabilities.shape[1:]), probabilities.dtype)
        for label, target in enumerate(self.targets):
            summed[target] += probabilities[label]
        return self._parts(summed)

    def field_parts(self, fields: np.ndarray, others: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """Confidences (C, H, W) in 0..1 -> the same as `parts`. others (H, W): the confidence of other people, who are
        background.

        A name's score is the highest of its fields, background's 1 minus the highest of all: so BPBreID groups its
        fields and derives its background (VlSomers/bpbreid at c0db0061, torchreid/data/masks_transforms/
        mask_transform.py, `max` and `diff_from_max`). Probabilities are the scores over their sum.
        """
        scores = np.zeros((self._count(), *fields.shape[1:]), fields.dtype)
        for label, target in enumerate(self.targets):
            np.maximum(scores[target], fields[label], out=scores[target])
        background = 1 - scores.max(0)
        scores[0] = background if others is None else np.maximum(background, others)
        return self._parts(scores / scores.sum(0))

    def _count(self) -> int:
        return len(TAXONOMIES[self.taxonomy]) + (len(OPEN) if self.taxonomy == "lip20" else 0)

    def _parts(self, summed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.taxonomy == "lip20":
            summed = close_probabilities(summed, summed.argmax(0))

        native = summed.argmax(0).astype(np.uint8)
        return native, *parts_of(native, summed, self.taxonomy)

    def check_names(self, names: dict[int, str], source: str) -> None:
        """InputError if a parser that names its labels names other ones. Case, blanks and dashes do not count."""
        if len(names) != len(self.names):
            raise InputError(f"{source!r}: has {len(names)} labels where the label map {self.path!r} has "
                             f"{len(self.names)}; name the label map of this parser")

        for label, ours in enumerate(self.names):
            theirs = names.get(label, "")
            if not re.fullmatch(r"LABEL_\d+", theirs) and _plain(theirs) != _plain(ours):
                raise InputError(f"{source!r}: calls label {label} {theirs!r} where the label map {self.path!r} calls "
                                 f"it {ours!r}; name the label map of this parser, or write one with its names")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_label_map(name: str) -> LabelMap:
    """A map of pipeline/parsing/label_maps/ by its name, or a YAML file. InputError names file and remedy."""
    path = _file(name)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        raise InputError(f"unknown label map {name!r} ({error.strerror}); it is one of {known}, or a .yaml file"
                         ) from error
    except Exception as error:  # PyYAML raises IndexError, AttributeError and KeyError on tags such as `!!int ''`
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{str(path)!r}: is no YAML ({reason}); docs/parsers.md shows a label map") from error

    return _check(tree, str(path) if path.parent != SHIPPED else name)


def label_map_sha256(name: str) -> str:
    """SHA-256 of a label map's file, hexadecimal: rows of a cache made with another one are stale."""
    return file_sha256(_file(name))


def _file(name: str) -> Path:
    return Path(name) if name.endswith((".yaml", ".yml")) else SHIPPED / f"{name}.yaml"


def _check(tree: object, path: str) -> LabelMap:
    tree = tree if isinstance(tree, dict) else {}
    taxonomy, labels, void = tree.get("taxonomy"), tree.get("labels"), tree.get("void", [])
    fields = tree.get("fields", False)
    unknown = sorted(str(key) for key in tree.keys() - {"taxonomy", "labels", "void", "fields"})
    if not isinstance(taxonomy, str) or taxonomy not in TAXONOMIES or not isinstance(labels, list) or unknown:
        raise InputError(f"{path!r}: is no label map; it has `taxonomy` ({' or '.join(TAXONOMIES)}), `labels` and "
                         f"perhaps `void`{', not ' + unknown[0] if unknown else ''}; docs/parsers.md shows one")

    names = (*TAXONOMIES[taxonomy], *(OPEN if taxonomy == "lip20" else ()))
    for label, pair in enumerate(labels):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(word, str) for word in pair)):
            raise InputError(f"{path!r}: label {label} is no pair of names; write [its name, ours], in quotes where "
                             "YAML would not read a word (null, no, on)")
        if pair[1] not in names:
            raise InputError(f"{path!r}: label {label} is {pair[1]!r} here; known are {', '.join(names)}")

    if not 0 < len(labels) <= 255 or not isinstance(void, list) or not all(
            isinstance(value, int) and len(labels) <= value <= 255 for value in void):
        raise InputError(f"{path!r}: needs 1 to 255 labels, and `void` a list of ids that are no label, up to 255")

    if not isinstance(fields, bool) or (fields and (void or any(pair[1] == names[0] for pair in labels))):
        raise InputError(f"{path!r}: `fields` is true or false, and with it there is no `void` and no label is "
                         f"{names[0]}, which is what no field claims; take that out")

    return LabelMap(path=path, taxonomy=taxonomy, names=tuple(pair[0] for pair in labels),
                    targets=tuple(names.index(pair[1]) for pair in labels), void=tuple(void), fields=fields)
