"""The engine: what it keeps of a parser against naive loops; the same bytes whatever happens on the way."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8
from pipeline.base.images import fit, read_image, write_image
from pipeline.caches.cache import Cache
from pipeline.datasets.index import read_index, write_index
from pipeline.parsing import engine
from pipeline.parsing.engine import quantise, shares
from pipeline.parsing.oracle import Oracle
from tests.helpers.parsed_set import COUNT, make_job, parse, soft_forward
from tests.helpers.plain_resize import plain_resize
from tests.helpers.tiny_set import HEIGHT, WIDTH


def test_quantised_maps_follow_their_definitions():
    random = np.random.default_rng(0)
    parts8 = random.dirichlet(np.full(8, 0.3), (3, 8, 12)).transpose(0, 3, 1, 2)
    uv = random.random((3, 8, 12, 2))
    output = {"native": torch.zeros(3, 8, 12, dtype=torch.uint8), "parts8": torch.from_numpy(parts8).float(),
              "uv": torch.from_numpy(uv).float()}
    maps = quantise(output)
    np.testing.assert_allclose(maps["uv"], uv * 255, atol=0.51)
    np.testing.assert_allclose(maps["visibility"], parts8.max((2, 3)) * 255, atol=0.51)
    for image in range(3):
        for row in range(2):
            for column in range(3):
                mean = parts8[image, :, row * 4:row * 4 + 4, column * 4:column * 4 + 4].reshape(8, 16).mean(1)
                four = [mean[0], mean[1], mean[2:5].sum(), mean[5:7].sum(), mean[7]]
                cell = (image, slice(None), row, column)
                for name, means in (("probs/parts8", mean), ("probs/parts4", np.array(four))):
                    np.testing.assert_array_equal(maps[name][cell], largest_remainders(means))
                    np.testing.assert_array_less(abs(maps[name][cell] - means * 255), 5)
                entropy = scipy.stats.entropy(mean, base=8)
                assert maps["entropy"][image, row, column] == 5 * round(entropy * 51)
    assert maps["valid"].all()


def largest_remainders(means: np.ndarray) -> list[int]:
    """The naive loop: 51 seats by Hamilton's method, times 5; of equal remainders the first one."""
    seats = [math.floor(mean * 51) for mean in means]
    order = sorted(range(len(means)), key=lambda k: (seats[k] - means[k] * 51, k))
    for k in order[:51 - sum(seats)]:
        seats[k] += 1
    return [5 * seat for seat in seats]


def test_probabilities_of_a_cell_sum_to_one_whatever_they_are():
    """Equal remainders, one certain part, and sums that are one but for the last bits."""
    cells = [[1 / 8] * 8, [1, *[0] * 7], [1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0, 0], [k / 16 for k in (9, 7, *[0] * 6)],
             np.float32(np.full(8, 0.1250001)), np.float32(np.full(8, 0.1249999))]
    kept = shares(torch.tensor(np.stack(cells)).float()[:, :, None, None])[..., 0, 0].astype(int)
    assert (kept.sum(1) == 255).all() and (kept % 5 == 0).all()
    assert kept[0].tolist() == [35, 35, 35, *[30] * 5] and kept[1].tolist() == [255, *[0] * 7]
    assert kept[2].tolist() == [85] * 3 + [0] * 5 and kept[3].tolist() == [145, 110, *[0] * 6]


def test_remainders_a_hair_apart_are_not_both_rounded_up():
    """Half a step and half a step and a millionth: one of them gets the step that is left, the larger."""
    cell = np.array([10.5, 10.5 + 2**-20, 9, 8, 7, 6, 0, 0], np.float64)
    cell[-1] = 51 - cell.sum()
    random = torch.randn(4, 8, 256, 256, generator=torch.Generator().manual_seed(1)).softmax(1)
    kept = shares(torch.tensor(cell / 51).float()[None, :, None, None])[0, :, 0, 0]
    assert kept.sum() == 255 and kept[0] == 50 and kept[1] == 55
    assert (shares(random).astype(int).sum(1) == 255).all()


def test_a_certain_parser_has_no_entropy_and_an_undecided_one_all():
    certain = torch.eye(8)[2].view(1, 8, 1, 1).expand(1, 8, 4, 4)
    native = torch.zeros(1, 4, 4, dtype=torch.uint8)
    assert quantise({"native": native, "parts8": certain})["entropy"] == 0
    assert quantise({"native": native, "parts8": torch.full((1, 8, 4, 4), 1 / 8)})["entropy"] == 255


def test_the_oracle_gives_the_ground_truth(root):
    parse(root, Oracle(root / "raw/labels.h5", height=HEIGHT, width=WIDTH))
    cache = Cache(root / "parts.h5")
    truth = Oracle(root / "raw/labels.h5", height=HEIGHT, width=WIDTH)
    for row, path in enumerate(make_job(root).paths):
        native, uv = truth._labels(path)
        np.testing.assert_array_equal(cache.read("native", row), native)
        np.testing.assert_array_equal(cache.read("uv", row), uv)
        expected = np.array([DENSEPOSE24_TO_PARTS8[label] for label in native.ravel()]).reshape(native.shape)
        np.testing.assert_array_equal(cache.read("labels", row), expected)
        assert set(np.flatnonzero(cache.read("visibility", row))) == set(np.unique(expected))
        assert set(np.unique(cache.read("visibility", row))) <= {0, 255}
    assert cache.column("status").tolist() == ["no person" if row == 2 else "parsed" for row in range(COUNT)]
    raw = root / "raw" / make_job(root).paths[5]
    assert cache.column("image_sha256")[5] == hashlib.sha256(raw.read_bytes()).hexdigest()


def test_the_oracle_at_another_size_takes_whole_pixels(root):
    path = make_job(root).paths[:1]
    small, big = (Oracle(root / "raw/labels.h5", height=HEIGHT * scale, width=WIDTH * scale)(torch.zeros(1), path)
                  for scale in (1, 2))
    for name in ("native", "uv"):
        np.testing.assert_array_equal(big[name], small[name].repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_every_forward_pass_has_the_same_rows_and_padding_leaves_no_trace(root):
    sizes, padding = [], []

    def watched(images, paths):
        sizes.append(tuple(images.shape))
        padding.append(paths.count(""))
        return soft_forward(images, paths)

    parse(root, watched)
    assert sizes == [(4, 3, HEIGHT, WIDTH)] * 6 and padding == [0, 0, 0, 0, 0, 2]
    assert len(Cache(root / "parts.h5")) == COUNT


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_and_ranks_change_no_byte(root, kills):
    """One parse killed at 20 chosen places; parses killed at `kills` moments spread over one; 2 and 4 ranks at once."""
    expected = parse(root)
    script = Path(__file__).parents[1] / "helpers" / "crashing_parse.py"
    done = subprocess.run([sys.executable, str(script), str(root), str(kills)], capture_output=True, text=True,
                          check=False, cwd=script.parents[2], env=os.environ | {"PYTHONPATH": str(script.parents[2])})
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    lines = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    points, finished = lines[:20], lines[20:]
    assert len(finished) == kills + 4, done.stdout + done.stderr
    assert {md5 for _, md5 in finished} == {expected}, done.stdout + done.stderr
    assert not [case for case, _ in lines if "not killed" in case or "failed" in case], done.stdout
    # the old file until the new one takes its place, and units until it is there
    assert [md5 for _, md5 in points[17:]] == [expected] * 3 and len({md5 for _, md5 in points[:17]}) == 1, done.stdout
    assert points[0][1] != expected and ": 5 units, " in points[16][0], done.stdout


def test_beside_the_network_or_in_turns_with_it_changes_no_byte(root, monkeypatch):
    """A network's threads on all cores let decoding and compression wait; batches before and after fill no group."""
    order: list[str] = []
    monkeypatch.setattr(engine, "TOGETHER", 4)  # of the 6 batches

    def watched(function, name):
        def call(*arguments):
            order.append(name)
            return function(*arguments)
        return call

    for name in ("_decode", "_compress"):
        monkeypatch.setattr(engine, name, watched(getattr(engine, name), name))
    found = []
    for cores in (1, 2, 8):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        order.clear()
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        found.append(parse(root, watched(soft_forward, "forward"), name=f"{cores}.h5"))
        if cores == 1:
            assert order[4:8] == ["forward"] * 4 and sorted(order[8:14]) == ["_compress"] * 4 + ["_decode"] * 2
            assert order[14:] == ["forward"] * 2 + ["_compress"] * 2
    assert len(set(found)) == 1


def dying(done: list[list[str]]):
    """A parser that is stopped at its fifth batch; those before go into `done`."""
    def forward(images, paths):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(paths)
        return soft_forward(images, paths)

    return forward


def test_a_killed_parse_goes_on_from_its_units(root, monkeypatch):
    monkeypatch.setattr(engine, "TOGETHER", 4)  # of the 6 batches
    done: list[list[str]] = []
    with pytest.raises(KeyboardInterrupt):
        parse(root, dying(done))
    again = []
    parse(root, lambda images, paths: (again.append(paths), soft_forward(images, paths))[1])
    assert 2 <= len(again) <= 5 and done[0] not in again


def test_rows_and_units_of_other_code_are_made_again(root, monkeypatch, capsys):
    seen: list[str] = []

    def watched(images, paths):
        seen.extend(path for path in paths if path)
        return soft_forward(images, paths)

    first = parse(root, watched, code="one")
    assert len(seen) == COUNT and parse(root, watched, code="one") == first and len(seen) == COUNT
    assert parse(root, watched, code="two") == first and len(seen) == 2 * COUNT
    said = "parts.h5': was made by other code or on another machine; all images are parsed anew"
    assert said in capsys.readouterr().out

    monkeypatch.setattr(engine, "TOGETHER", 2)
    done: list[list[str]] = []
    (root / "parts.h5").unlink()
    with pytest.raises(KeyboardInterrupt):
        parse(root, dying(done), code="two")
    seen.clear()
    assert parse(root, watched, code="three") == first and len(seen) == COUNT, "none of the units was taken up"


def test_appending_changing_and_dropping_images_equals_a_parse_from_scratch(root):
    full = read_index(root / "index.csv")
    seen: list[str] = []

    def watched(images, paths):
        seen.extend(path for path in paths if path)
        return soft_forward(images, paths)

    write_index(full.drop(index=[0, 7, 8, 9, 20]), root / "index.csv")
    parse(root, watched)
    assert len(seen) == COUNT - 5
    seen.clear()
    write_index(full, root / "index.csv")
    changed = full["path"][4]
    write_image(root / "raw" / changed, np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    appended = parse(root, watched)
    assert seen == full["path"][[0, 4, 7, 8, 9, 20]].tolist()
    assert appended == parse(root, name="scratch.h5")
    seen.clear()
    assert parse(root, watched) == appended and seen == []
    write_index(full.drop(index=[3]), root / "index.csv")
    assert parse(root, watched) == parse(root, name="fewer.h5") and seen == []
    parse(root, watched, maker='{"parser": "another"}')
    assert len(seen) == COUNT - 1


def test_a_box_of_an_image_is_parsed_and_rows_of_another_box_are_not_kept(root):
    seen: list[str] = []

    def watched(images, paths):
        seen.extend(filter(None, paths))
        return soft_forward(images, paths)

    job = make_job(root)
    boxes = [(0, row % 8, HEIGHT - row % 5, WIDTH) for row in range(COUNT)]
    parse(root, watched, boxes=boxes)
    cache = Cache(root / "parts.h5")
    assert cache.column("box").tolist() == [list(box) for box in boxes]
    for row in (0, 7, 13):
        top, left, bottom, right = boxes[row]
        image = fit(read_image(root / "raw" / job.paths[row])[top:bottom, left:right], HEIGHT, WIDTH)
        expected = soft_forward(torch.from_numpy(image).permute(2, 0, 1)[None], [])["native"][0]
        np.testing.assert_array_equal(cache.read("native", row), expected)
    cache.close()

    seen.clear()
    boxes[9] = (4, 0, HEIGHT, WIDTH)
    again = parse(root, watched, boxes=boxes)
    assert seen == [job.paths[9]] and again == parse(root, name="scratch.h5", boxes=boxes)
    parse(root, watched)
    assert len(seen) == 1 + COUNT, "no row of a box is one of the whole image"


def test_shrinking_takes_means_of_areas():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype(np.uint8)
    expected = image.reshape(4, 2, 3, 2, 3).mean((1, 3))
    np.testing.assert_allclose(fit(image, 4, 3), expected, atol=0.51)


def test_a_side_that_grows_while_the_other_shrinks_is_bilinear(root):
    job = make_job(root)
    path, shape = root / "raw" / job.paths[0], (HEIGHT // 2, 3 * WIDTH)
    write_image(path, np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8))
    seen = {}
    parse(root, lambda images, paths: (seen.update(zip(paths, images, strict=True)), soft_forward(images, paths))[1])
    expected = plain_resize(read_image(path), HEIGHT, WIDTH)
    np.testing.assert_allclose(seen[job.paths[0]].permute(1, 2, 0), expected, atol=0.51)
