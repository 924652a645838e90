"""DSAP warps against the paper's loop over pixels, flips against warping the flipped picture."""

import hashlib
import math
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.body_parts import DENSEPOSE24, DENSEPOSE24_FLIP
from pipeline.base.errors import InputError
from pipeline.base.images import nearest, read_image, write_image
from pipeline.caches import resumable
from pipeline.caches import warp as warping
from pipeline.caches.cache import Cache, compress
from pipeline.caches.warp import part_crops, warp
from pipeline.config.loader import Experiment
from pipeline.datasets.index import read_index, write_index
from pipeline.loading.augmentation import flip_parts, flip_pieces
from pipeline.parsing.engine import Job, parse_images
from pipeline.parsing.oracle import Oracle
from stages import warp as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.plain_resize import plain_resize
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def loop(image, index, uv, texels):
    """DSA-reID 3.1, pixel by pixel."""
    dsap = np.zeros((24, texels, texels, 3), np.uint8)
    valid = np.zeros((24, texels, texels), np.uint8)
    for row in range(index.shape[0]):
        for column in range(index.shape[1]):
            part = index[row, column]
            if part:
                u, v = (float(byte) / 255 for byte in uv[row, column])
                place = (part - 1, min(math.floor(u * texels), texels - 1), min(math.floor(v * texels), texels - 1))
                dsap[place], valid[place] = image[row, column], 1
    return dsap, valid


def made_up(seed: int, height: int = 24, width: int = 12):
    random = np.random.default_rng(seed)
    index = (random.integers(1, 25, (height, width)) * (random.random((height, width)) < 0.7)).astype(np.uint8)
    black = random.random((height, width, 1)) < 0.2  # which is a colour like others
    return (np.where(black, 0, random.integers(0, 256, (height, width, 3))).astype(np.uint8), index,
            random.integers(0, 256, (height, width, 2)).astype(np.uint8))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), texels=st.sampled_from([1, 2, 5, 32]))
def test_the_warp_is_the_papers_loop(seed, texels):
    image, index, uv = made_up(seed)
    for ours, naive in zip(warp(image, index, uv, texels=texels), loop(image, index, uv, texels), strict=True):
        np.testing.assert_array_equal(ours, naive)


def test_the_warp_of_densepose_own_output_is_the_papers_loop():
    if not DATA.exists():
        pytest.skip("shared/data is absent")
    iuv = cv2.imread(str(DATA / "densepose_demo/demo_im_IUV.png"))
    image = read_image(DATA / "densepose_demo/demo_im.jpg")
    crop = np.s_[50:450, 100:500]
    parts = (image[crop], np.ascontiguousarray(iuv[crop][..., 0]), np.ascontiguousarray(iuv[crop][..., 1:]))
    assert (parts[1] > 0).sum() > 10_000
    for ours, naive in zip(warp(*parts, texels=32), loop(*parts, 32), strict=True):
        np.testing.assert_array_equal(ours, naive)


def test_rows_are_u_and_the_border_stays_inside():
    image, index = np.full((1, 3, 3), 9, np.uint8), np.array([[2, 2, 2]], np.uint8)
    valid = warp(image, index, np.array([[[255, 0], [0, 255], [128, 64]]], np.uint8), texels=32)[1]
    assert sorted(map(tuple, np.argwhere(valid))) == [(1, 0, 31), (1, 16, 8), (1, 31, 0)]


FLIP = torch.ones(1, dtype=torch.bool)


def parts_flipped(parts: np.ndarray) -> np.ndarray:
    """flip_parts of one picture's images or flags."""
    return flip_parts(torch.from_numpy(parts)[None], FLIP)[0].numpy()


def test_flipping_a_warp_is_warping_the_flipped_picture():
    """Exactly so where no two pixels share a texel: every texel is written by one pixel of its own."""
    random = np.random.default_rng(0)
    texels = 4
    parts, u, v = np.indices((24, texels, texels)).reshape(3, -1)
    order = random.permutation(parts.size)
    index = (parts[order] + 1).reshape(16, 24).astype(np.uint8)
    uv = np.stack([u[order], v[order]], 1).reshape(16, 24, 2) * 255 // texels + 20
    uv = uv.astype(np.uint8)
    image = random.integers(0, 256, (16, 24, 3)).astype(np.uint8)
    mirrored, mirrored_uv = DENSEPOSE24_FLIP[index[:, ::-1]], uv[:, ::-1].copy()
    for label, name in enumerate(DENSEPOSE24):
        axis = 1 if "torso" in name else 0 if {"hand", "foot", "head"} & set(name.split()) else None
        if axis is not None:
            mirrored_uv[mirrored == label, axis] = 255 - mirrored_uv[mirrored == label, axis]
    before, after = warp(image, index, uv, texels=texels), warp(image[:, ::-1], mirrored, mirrored_uv, texels=texels)
    assert before[1].all()
    for ours, expected in zip(map(parts_flipped, before), after, strict=True):
        np.testing.assert_array_equal(ours, expected)


SEEN = {2, 3, 4, 5, 6, 9, 10, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24}  # of a person who faces the camera


def test_densepose_charts_agree_with_their_partners_under_the_flip():
    """On the demo picture's person who faces the camera, each texel's height in the picture is that of the texel that
    takes its place in the flip, and it lies on the other side. Hands and feet do so under u -> 1 - u alone."""
    demo = DATA / "densepose_demo"
    if not demo.exists():
        pytest.skip("shared/data/densepose_demo is absent")
    person = cv2.imread(str(demo / "demo_im_INDS.png"), cv2.IMREAD_GRAYSCALE)[190:446, 185:275] == 19
    iuv = cv2.imread(str(demo / "demo_im_IUV.png"))[190:446, 185:275]
    rows, columns = np.indices(person.shape)
    places = np.stack([rows, columns, np.zeros_like(rows)], 2).astype(np.uint8)
    dsap, valid = warp(places, np.where(person, iuv[..., 0], 0), np.ascontiguousarray(iuv[..., 1:]), texels=32)

    own, known = smooth(dsap, valid)
    theirs, theirs_known = smooth(parts_flipped(dsap), parts_flipped(valid))
    compared = set()
    for part in range(24):
        both = known[part] & theirs_known[part]
        if both.sum() >= 40:
            y, x = (np.corrcoef(own[part, ..., axis][both], theirs[part, ..., axis][both])[0, 1] for axis in (0, 1))
            assert y >= 0.9 and x <= -0.7, (DENSEPOSE24[part + 1], y, x)
            compared.add(part + 1)
    assert compared == SEEN


def smooth(dsap: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each texel the mean of those around it that have a value, and where there are some."""
    def blurred(maps: np.ndarray) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(part, (0, 0), 1.5, borderType=cv2.BORDER_CONSTANT) for part in maps])

    weight = blurred(valid.astype(np.float64))
    means = blurred(dsap * valid[..., None].astype(np.float64)) / np.maximum(weight, 1e-9)[..., None]
    return means, weight > 0.1


def test_csa_crops_are_each_parts_box_and_flip_with_the_picture():
    image, index, _ = made_up(6)
    index[:, :4] = 0
    index[index == 5] = 0
    index[2:4, 10:12], index[8:11, 5:7] = 5, 5
    image[2:11, 5:12] = (10, 20, 30)
    crops, valid = part_crops(image, index, texels=8)
    assert (crops[4] == (10, 20, 30)).all() and valid[4].all()
    for part in range(1, 25):
        where = np.argwhere(index == part)
        assert valid[part - 1].all() == bool(len(where)) == valid[part - 1].any()
        if len(where):
            (top, left), (bottom, right) = where.min(0), where.max(0) + 1
            inside = image[top:bottom, left:right].reshape(-1, 3)
            assert (crops[part - 1] >= inside.min(0)).all() and (crops[part - 1] <= inside.max(0)).all()
        else:
            assert not crops[part - 1].any()
    mirrored = part_crops(image[:, ::-1], DENSEPOSE24_FLIP[index[:, ::-1]], texels=8)
    for ours, theirs in zip((crops, valid), mirrored, strict=True):
        flipped = flip_pieces(torch.from_numpy(ours)[None], FLIP)[0].numpy()
        assert np.abs(flipped.astype(int) - theirs).max() <= 1


def test_a_part_s_box_is_resized_each_side_by_itself():
    image = np.random.default_rng(0).integers(0, 256, (40, 20, 3)).astype(np.uint8)
    index = np.zeros((40, 20), np.uint8)
    index[3:35, 4:10] = 7  # 32 x 6 pixels for 16 x 16 texels
    crops, _ = part_crops(image, index, texels=16)
    np.testing.assert_allclose(crops[6], plain_resize(image[3:35, 4:10], 16, 16), atol=0.51)


def test_flipping_twice_changes_nothing():
    dsap, valid = warp(*made_up(3), texels=8)
    for images in (dsap, valid):
        assert (parts_flipped(images) != images).any()
        np.testing.assert_array_equal(parts_flipped(parts_flipped(images)), images)


def test_maps_at_another_size_are_those_of_the_nearest_pixel():
    for values in made_up(5)[1:]:
        np.testing.assert_array_equal(nearest(values, 48, 24), values.repeat(2, 0).repeat(2, 1))
        np.testing.assert_array_equal(nearest(values, 8, 4), values[1::3, 1::3])


@pytest.fixture
def parsed(tmp_path, monkeypatch) -> Experiment:
    """A tiny set parsed by the oracle, the working folder its root, and the stage's experiment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warping, "UNIT_ROWS", 4)
    write_set(Path("."), 10)
    write_index(read_index("index.csv"), "data/index/tiny.csv")
    parse_tiny()
    warp = {"height": 2 * HEIGHT, "width": 2 * WIDTH, "texels": 8, "alignment": "dsap"}
    plan = {"dataset": "tiny", "index": "data/index/tiny.csv", "raw": "raw", "parts": "data/cache/tiny/parts.h5"}
    return bare_experiment(params={"warps": {"tiny": warp}}, plan={"warp": {"tiny": plan}})


def parse_tiny() -> None:
    index = read_index("index.csv")
    job = Job(keys=index["image"].tolist(), paths=index["path"].tolist(), raw=Path("raw"), maker='{"parser": "oracle"}',
              taxonomy="densepose24", uv=True, height=HEIGHT, width=WIDTH, batch=4, device="cpu")
    oracle = Oracle("raw/labels.h5", height=HEIGHT, width=WIDTH)
    parse_images(job, oracle, Path("data/cache/tiny/parts.h5"), scratch=Path("scratch/p"))


def md5() -> str:
    return hashlib.md5(Path("data/cache/tiny/dsap.h5").read_bytes()).hexdigest()


def test_the_stage_warps_every_image_at_the_size_asked_for(parsed):
    stage.run(parsed, "tiny")
    cache = Cache("data/cache/tiny/dsap.h5")
    index = read_index("index.csv")
    with h5py.File("raw/labels.h5", "r", locking=False) as labels:
        for row, path in enumerate(index["path"]):
            image = cv2.resize(read_image(Path("raw") / path), (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_LINEAR)
            expected = loop(image, labels["index"][row].repeat(2, 0).repeat(2, 1),
                            labels["uv"][row].repeat(2, 0).repeat(2, 1), 8)
            np.testing.assert_array_equal(cache.read("dsap", row), expected[0])
            np.testing.assert_array_equal(cache.read("valid", row), expected[1])
    assert cache.column("key").tolist() == index["image"].tolist()
    parts = Cache("data/cache/tiny/parts.h5")
    assert cache.column("image_sha256").tolist() == parts.column("image_sha256").tolist()
    assert cache.maker["parts"] == {"parser": "oracle"} and cache.maker["texels"] == 8
    assert not cache.read("valid", 2).any()  # nobody is there


def test_stopped_and_shared_warps_have_the_same_bytes(parsed, monkeypatch):
    stage.run(parsed, "tiny")
    expected = md5()
    saved = []

    def stop(path, rows):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(path.name)
        return save(path, rows)

    save = resumable.save_unit
    Path("data/cache/tiny/dsap.h5").unlink()
    monkeypatch.setattr(resumable, "save_unit", stop)
    with pytest.raises(KeyboardInterrupt):
        stage.run(parsed, "tiny")
    assert not Path("data/cache/tiny/dsap.h5").exists()
    monkeypatch.setattr(resumable, "save_unit", save)
    stage.run(parsed, "tiny")
    assert md5() == expected and len(saved) == 2
    Path("data/cache/tiny/dsap.h5").unlink()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        stage.run(parsed, "tiny")
    assert md5() == expected


def test_a_part_of_a_set_is_warped_from_its_own_rows_and_nothing_stale(parsed, monkeypatch):
    """From units of the whole set that were left, and from a parts.h5 in which its rows stand elsewhere."""
    def stop(*_):
        raise KeyboardInterrupt

    stage.run(parsed, "tiny")
    whole, index = Cache("data/cache/tiny/dsap.h5"), read_index("data/index/tiny.csv")
    expected = [(whole.read("dsap", row), whole.read("valid", row)) for row in range(5, 10)]
    hashes = whole.column("image_sha256")[5:].tolist()
    whole.close()
    Path("data/cache/tiny/dsap.h5").unlink()
    rows = resumable.unit_rows
    monkeypatch.setattr(resumable, "unit_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        stage.run(parsed, "tiny")
    monkeypatch.setattr(resumable, "unit_rows", rows)

    write_index(index[5:], "data/index/tiny.csv")
    stage.run(parsed, "tiny")
    part = Cache("data/cache/tiny/dsap.h5")
    assert part.column("key").tolist() == index["image"][5:].tolist() and part.column("image_sha256").tolist() == hashes
    for row, (dsap, valid) in enumerate(expected):
        np.testing.assert_array_equal(part.read("dsap", row), dsap)
        np.testing.assert_array_equal(part.read("valid", row), valid)


def test_an_unknown_alignment_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown alignment 'none'; it is dsap or csa"):
        warping.warp_images(Cache(tmp_path / "parts.h5"), [], [], tmp_path, tmp_path / "dsap.h5", maker="{}", height=8,
                            width=4, texels=4, alignment="none", scratch=tmp_path / "scratch")


def test_images_without_a_parse_have_empty_warps(parsed):
    Path("raw", read_index("index.csv")["path"][4]).write_bytes(b"no image")
    parse_tiny()
    stage.run(parsed, "tiny")
    cache = Cache("data/cache/tiny/dsap.h5")
    assert cache.chunk("valid", 4) == compress(np.zeros((24, 8, 8), np.uint8)) and cache.read("valid", 5).any()


def test_faults_are_sentences(parsed):
    index = read_index("index.csv")
    image = Path("raw", index["path"][7])
    kept = image.read_bytes()
    write_image(image, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(InputError, match=r"query/0007.*SHA-256.*parts\.h5.*stage parse again"):
        stage.run(parsed, "tiny")
    image.write_bytes(kept)
    write_index(index.assign(image=index["image"] + "x"), "data/index/tiny.csv")
    with pytest.raises(InputError, match=r"parts\.h5.*no row for 'query/0000.*another index.*stage parse"):
        stage.run(parsed, "tiny")
    Path("data/cache/tiny/parts.h5").unlink()
    with pytest.raises(InputError, match=r"parts\.h5.*no such cache; make it with the stage parse"):
        stage.run(parsed, "tiny")


def test_a_parser_without_uv_cannot_be_warped(parsed):
    def background(images, paths):
        return {"native": images[:, 0] * 0, "parts8": torch.eye(8)[0].view(1, 8, 1, 1).expand(4, 8, HEIGHT, WIDTH)}

    index = read_index("index.csv")
    job = Job(keys=index["image"].tolist(), paths=index["path"].tolist(), raw=Path("raw"),
              maker='{"parser": "labels only"}', taxonomy="densepose24", uv=False, height=HEIGHT, width=WIDTH, batch=4,
              device="cpu")
    parse_images(job, background, Path("data/cache/tiny/parts.h5"), scratch=Path("scratch/q"))
    assert set(Cache("data/cache/tiny/parts.h5").column("status")) == {"no person"}
    with pytest.raises(InputError, match=r"parts\.h5.*no 'uv'.*'labels only'.*densepose24 with a u,v head"):
        stage.run(parsed, "tiny")
