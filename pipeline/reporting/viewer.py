"""Viewer of a report: queries with their ranked pictures, part by part, as data and a script inside the page.

page.js shows what `data` gives: pictures as JPEG, masks and entropy as small PNGs that lie over them, each once however
many lists it stands in. Room is counted in bytes of the page, and what does not fit is left out.
"""

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from PIL import Image

from pipeline.base.body_parts import PARTS8
from pipeline.base.images import fit
from pipeline.base.seeds import rng
from pipeline.reporting.neighbours import Listed, Neighbours
from pipeline.reporting.plots import PART_COLOURS

SCRIPT = Path(__file__).with_name("page.js")
TALL, WIDE = 192, 160  # a picture's largest height and width in pixels
QUALITY = 80  # of JPEG
LEVELS = 16  # of entropy that are told apart
CRYPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})  # no text may end the script that holds it


@dataclass(frozen=True)
class Picture:
    """A picture of the page: `image` (H, W, 3) uint8, its file's name, who it shows and which camera took it; labels
    (h, w) of the 8 parts and entropy uint8; lacks: the groups of parts that its parse has too little of."""
    image: np.ndarray
    name: str
    pid: int
    camid: int
    labels: np.ndarray
    entropy: np.ndarray
    lacks: Sequence[str] = ()


@dataclass
class Album:
    """The pictures of a page, each once; load: a picture by its key; room: how many bytes of text they may take."""
    load: Callable[[str], Picture]
    room: int
    entries: list[dict[str, Any]] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, keys: Iterable[str], more: int = 0) -> bool:
        """Add pictures, and `more` bytes that go with them, if all of them fit; whether they did."""
        new = {key: entry(self.load(key)) for key in dict.fromkeys(keys) if key not in self.places}
        size = more + sum(len(as_json(one)) + 1 for one in new.values())
        if size > self.room:
            return False

        self.room -= size
        for key, one in new.items():
            self.places[key] = len(self.entries)
            self.entries.append(one)
        return True


def entry(picture: Picture) -> dict[str, Any]:
    """A picture as page.js takes it."""
    height, width = picture.image.shape[:2]
    scale = min(1.0, TALL / height, WIDE / width)
    image = fit(picture.image, max(round(height * scale), 1), max(round(width * scale), 1))
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return {"name": picture.name, "pid": picture.pid, "camid": picture.camid, "ratio": round(width / height, 3),
            "lacks": list(picture.lacks), "jpg": as_text(data.tobytes()),
            "mask": as_text(overlay(picture.labels, PART_COLOURS)),
            "entropy": as_text(entropy_overlay(picture.entropy))}


def overlay(labels: np.ndarray, colours: np.ndarray, opacity: Sequence[int] = (0,)) -> bytes:
    """PNG of labels (H, W) in their colours (N, 3) uint8, small; opacity: of the first ones, 255 of all others."""
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(colours.astype(np.uint8).tobytes())
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True, bits=4 if len(colours) <= 16 else 8, transparency=bytes(opacity))
    return data.getvalue()


def entropy_overlay(entropy: np.ndarray) -> bytes:
    """PNG of entropy (h, w) uint8, clearer the more undecided the parser was."""
    colours = (matplotlib.colormaps["magma"](np.linspace(0, 1, LEVELS))[:, :3] * 255).round()
    opacity = np.linspace(0, 255, LEVELS).round().astype(int).tolist()
    return overlay(entropy // (256 // LEVELS), colours, opacity)


def as_text(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode("ascii")


def as_json(content: Any) -> str:
    """JSON without spaces in which no markup can stand."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True).translate(CRYPT)


def query_order(runs: Sequence[Neighbours]) -> list[str]:
    """The scored queries in turn one that some run answers wrongly and one that none does, both in an order that a
    fixed seed draws: any first part of it is a fair sample of either kind."""
    firsts: dict[str, set[int]] = {}
    for run in runs:
        for listed in run.lists:
            firsts.setdefault(listed.query, set()).add(listed.first)
    scored = sorted(query for query, places in firsts.items() if 0 not in places)
    drawn = [scored[place] for place in rng(0, "report", "queries").permutation(len(scored))]

    kinds = [[query for query in drawn if (firsts[query] == {1}) == right] for right in (False, True)]
    turns = [query for pair in zip(*kinds, strict=False) for query in pair]
    return turns + [query for kind in kinds for query in kind[len(turns) // 2:]]


def query_entries(runs: Sequence[Neighbours], album: Album, order: Sequence[str]) -> list[dict[str, Any]]:
    """The queries in `order`, with each run's list, up to the first whose pictures the album has no room for; sorted
    by key. All runs have lists of all queries."""
    lists = [{listed.query: listed for listed in run.lists} for run in runs]
    found = {}
    for query in order:
        shown = [one[query] for one in lists]
        size = sum(len(as_json(_list(listed, dict.fromkeys(listed.gallery, 99999)))) for listed in shown) + 200
        if not album.add([query, *(key for listed in shown for key in listed.gallery)], size):
            break
        found[query] = {"image": album.places[query], "hidden": shown[0].hidden,
                        "lists": [_list(listed, album.places) for listed in shown]}
    return [found[query] for query in sorted(found)]


def _list(listed: Listed, places: dict[str, int]) -> dict[str, Any]:
    return {"first": listed.first, "visibility": listed.visibility, "gallery": [places[key] for key in listed.gallery],
            "place": listed.place, "match": [int(one) for one in listed.match], "distance": listed.distance,
            "visible": listed.visible, "parts": listed.parts}


def viewer(content: dict[str, Any]) -> str:
    """HTML of the viewer and its script. content: images, runs, queries, crops."""
    legend = "".join(f'<li><i style="background: rgb({red}, {green}, {blue})"></i>{escape(name)}</li>'
                     for name, (red, green, blue) in list(zip(PARTS8, PART_COLOURS.tolist(), strict=True))[1:])
    script = SCRIPT.read_text(encoding="utf-8")
    return f"""<noscript><p class="note">The lists need JavaScript, which is switched off here.</p></noscript>
<form id="controls" hidden>
<label>run <select name="run"></select></label>
<label>beside it <select name="beside"></select></label>
<label>queries <select name="show"></select></label>
<label>hidden <select name="hidden"></select></label>
<label>parser misses <select name="lacks"></select></label>
<label>order <select name="order"></select></label>
<label>over the pictures <select name="over"></select></label>
</form>
<ul id="legend" class="legend" hidden>{legend}</ul>
<p id="count" class="note" aria-live="polite"></p>
<div id="lists"></div>
<button id="more" type="button" hidden>more queries</button>
<script type="application/json" id="data">{as_json(content)}</script>
<script>
{script}</script>
"""
