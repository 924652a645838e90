"""The report's viewer: what it holds, and in a real headless browser that it shows, filters and says nothing."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.reporting import html_page
from pipeline.reporting.neighbours import Listed, Neighbours, read_neighbours, write_neighbours
from pipeline.reporting.plots import PART_COLOURS
from pipeline.reporting.viewer import (
    Album,
    Picture,
    as_json,
    as_text,
    entropy_overlay,
    query_entries,
    query_order,
    viewer,
)
from tests.helpers.browser import PROGRAM, browser

PEOPLE = 8
RUNS = {"one": {0, 1, 2, 3, 4}, "two": {0, 1, 5}}  # run -> the people whose queries it has right
HIDDEN = [0.05, 0.2, 0.2, 0.4, 0.4, 0.4, 0.9, None]


def picture(key: str) -> Picture:
    person = int(key.split("/")[1])
    draw = np.random.default_rng(person)
    return Picture(draw.integers(0, 256, (64, 32, 3)).astype(np.uint8), f"</script><b>{key}", person, 1,
                   draw.integers(0, 8, (32, 16)).astype(np.uint8), draw.integers(0, 256, (8, 4)).astype(np.uint8),
                   ["head"] if person % 2 else [])


def run_of(name: str) -> Neighbours:
    lists = []
    for person in range(PEOPLE):
        others = [(person + step) % PEOPLE for step in range(1, 4)]
        shown = [person, *others[:2]] if person in RUNS[name] else [*others, person]
        first = 1 if person in RUNS[name] else 20 + person
        lists.append(Listed(
            query=f"query/{person}", hidden=HIDDEN[person], first=first, visibility=[1.0, 0.5],
            gallery=[f"gallery/{other}" for other in shown], match=[other == person for other in shown],
            place=[1, 2, 3] if first == 1 else [1, 2, 3, first], distance=[0.3, 0.4, None, 0.6][:len(shown)],
            visible=[[1.0, 1.0]] * len(shown), parts=[[0.2, 0.5]] * len(shown)))
    return Neighbours(name, "people", "net", "cosine", "mean", [8, 8], lists)


def content(room: int = 10**7) -> dict:
    runs = [run_of(name) for name in RUNS]
    album = Album(picture, room)
    queries = query_entries(runs, album, query_order(runs))
    album.add(["train/9"])
    crops = [{"title": "without a head (1)", "items": [[place, ""]]} for key, place in album.places.items()
             if key == "train/9"]
    return {"images": album.entries, "queries": queries, "crops": crops, "runs": [
        {"name": run.result, "distance": "cosine", "reduction": "mean", "parts": ["whole image", "stripe 1"]}
        for run in runs]}


def test_lists_are_read_as_they_were_written(tmp_path):
    written = run_of("one")
    write_neighbours(tmp_path / "one.json", written)
    assert read_neighbours(tmp_path / "one.json", result="one", dataset="people", remedy="") == written
    assert written.rank1() == 5 / 8


def test_queries_come_in_turn_wrong_and_right_and_without_those_that_are_not_scored():
    runs = [run_of(name) for name in RUNS]
    order = query_order(runs)
    assert sorted(order) == [f"query/{person}" for person in range(PEOPLE)]
    assert [int(query[-1]) in (0, 1) for query in order[:4]] == [False, True, False, True], "two are right in both runs"
    for run in runs:
        run.lists[3] = Listed(**{**vars(run.lists[3]), "first": 0})
    assert "query/3" not in query_order(runs) and len(query_order(runs)) == PEOPLE - 1
    assert query_order(runs) == query_order(runs[::-1])


@pytest.mark.parametrize("room", [0, 3000, 20_000, 10**6])
def test_pictures_and_lists_never_take_more_than_their_room(room):
    held = content(room)
    assert len(as_json(held["images"])) + len(as_json(held["queries"])) <= max(room, 4)
    assert (len(held["queries"]) == PEOPLE) == (room == 10**6)


def test_masks_and_entropy_lie_over_the_pictures_in_their_colours():
    shown = picture("query/1")
    entry = content()["images"][next(place for place, one in enumerate(content()["images"]) if one["pid"] == 1)]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["mask"]))).convert("RGBA"))
    assert np.array_equal(mask[..., :3], PART_COLOURS[shown.labels])
    assert np.array_equal(mask[..., 3], np.where(shown.labels == 0, 0, 255))
    ramp = np.asarray(Image.open(io.BytesIO(entropy_overlay(np.arange(256, dtype=np.uint8)[None]))).convert("RGBA"))
    assert ramp[0, 0, 3] == 0 and ramp[0, -1, 3] == 255 and (np.diff(ramp[0, :, 3].astype(int)) >= 0).all()


def test_nothing_in_a_text_ends_the_script_that_holds_it():
    assert "<" not in as_json({"a": "</script><!--"}) and as_text(b"\x00") == "AA=="
    assert viewer(content()).count("</script>") == 2


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A page in a browser, and its address."""
    if PROGRAM is None:
        pytest.skip("needs Chromium")
    folder = tmp_path_factory.mktemp("page")
    sections = [("queries", "Queries", viewer(content())), ("worst", "Worst", '<div id="crops"></div>')]
    (folder / "index.html").write_text(html_page.page(title="A page", introduction="Of runs.", sections=sections),
                                       encoding="utf-8")
    with browser(folder / "profile") as page:
        yield page, (folder / "index.html").as_uri()


def shown(page) -> list[int]:
    """The people whose queries are listed, in order."""
    return page.run("[...document.querySelectorAll('#lists .card h3')].map(one => "
                    "Number(/person (\\d+)/.exec(one.textContent)[1]))")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_and_its_console_says_nothing(opened, width):
    page, address = opened
    page.open(address, width=width, height=844)
    assert page.run("innerWidth") == width and page.run("document.documentElement.scrollWidth") <= width
    assert shown(page) == [7, 6, 5, 0, 1, 2, 3, 4], "wrong first, the farthest first match before others"
    assert page.run("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert page.run("document.querySelectorAll('#crops .picture').length") == 2
    told = page.run("document.querySelector('#count').textContent")
    assert "8 of the 8 queries here; one has 5 of them right." in told
    assert page.run("Math.min(...[...document.querySelectorAll('button.item, #controls select')]"
                    ".map(one => Math.min(one.offsetWidth, one.offsetHeight)))") >= 40, "large enough for a finger"
    assert page.said == []


def test_filters_leave_what_they_say(opened):
    page, address = opened
    page.open(address, width=390, height=844)
    for name, value, left in (("show", "wrong", [7, 6, 5]), ("show", "right", [0, 1, 2, 3, 4]), ("hidden", "2", [3, 4]),
                              ("show", "all", [5, 3, 4]), ("hidden", "", [7, 6, 5, 0, 1, 2, 3, 4]),
                              ("lacks", "head", [7, 5, 1, 3]), ("lacks", "nothing", [6, 0, 2, 4]), ("lacks", "", None),
                              ("order", "name", [*range(8)]), ("run", "1", [*range(8)]), ("show", "right", [0, 1, 5]),
                              ("beside", "0", [0, 1, 5]), ("show", "differ", [2, 3, 4, 5]), ("show", "better", [5]),
                              ("show", "worse", [2, 3, 4]), ("beside", "", [*range(8)])):
        page.choose(name, value)
        assert left is None or shown(page) == left, (name, value)
    assert page.said == []


def test_an_address_shows_again_what_was_chosen(opened):
    page, address = opened
    page.open(f"{address}#beside=1&show=differ&order=name&over=mask&run=99&other=1", width=1280, height=844)
    assert shown(page) == [2, 3, 4, 5]
    assert page.run("document.querySelectorAll('#lists .strip').length") == 8, "a list of each run"
    assert page.run("getComputedStyle(document.querySelector('#lists .mask')).display") == "block"
    page.choose("over", "entropy")
    assert page.run("getComputedStyle(document.querySelector('#lists .mask')).display") == "none"
    assert page.run("location.hash") == "#beside=1&show=differ&order=name&over=entropy"
    page.run("location.hash = '#worst'")
    assert shown(page) == [2, 3, 4, 5] and page.said == []


def test_a_touched_picture_opens_its_distance_part_by_part(opened):
    page, address = opened
    page.open(address, width=390, height=844)
    page.run("document.querySelectorAll('#lists .card')[0].querySelectorAll('button.item')[0].click()")
    cells = page.run("[...document.querySelectorAll('.detail tbody tr')].map(row => [...row.children]"
                     ".map(one => one.textContent))")
    # weights 1 and 0.5: (1 * 0.2 + 0.5 * 0.5) / 1.5 = 0.3
    assert cells == [["whole image", "1.00", "1.00", "0.200", "0.133"], ["stripe 1", "0.500", "1.00", "0.500", "0.167"]]
    assert "place 1: another person, distance 0.300" in page.run("document.querySelector('.detail').textContent")
    assert page.run("document.querySelectorAll('.detail .picture').length") == 6, "picture, mask and entropy of both"
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.run("document.querySelectorAll('#lists .card')[0].querySelectorAll('button.item')[2].click()")
    assert "no part is seen in both" in page.run("document.querySelector('.detail').textContent")
    page.run("document.querySelector('.detail .close').click()")
    assert page.run("document.querySelectorAll('.detail, .open').length") == 0 and page.said == []


def test_the_page_asks_nobody_for_anything():
    for name in ("page.js", "page.css"):
        text = Path(html_page.__file__).with_name(name).read_text(encoding="utf-8")
        assert not any(word in text for word in ("http:", "https:", "fetch(", "import ", "@import", "url("))
