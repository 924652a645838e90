"""Parses made elsewhere: written by hand, as the tools write them, and damaged."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, LIP20_TO_PARTS4, parts8_from_native
from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.parsing.engine import quantise
from pipeline.parsing.parse_png import read_iuv, read_label_png
from pipeline.parsing.precomputed import Precomputed, fit_uv, label_shares, source_sha256
from tests.helpers.rendered_people import people

HEIGHT, WIDTH = 128, 64
PATHS = [f"query/{number:04d}.jpg" for number in range(3)]
PALETTE = list(np.random.default_rng(0).integers(0, 256, 768))


def random_labels(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, count, (height // 2, width // 2)).repeat(2, 0).repeat(2, 1).astype(np.uint8)


def write_pictures(root: Path, sizes: list[tuple[int, int]], paths=PATHS) -> None:
    for path, size in zip(paths, sizes, strict=True):
        (root / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / "raw" / path, np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8))


def write_labels(root: Path, maps: list[np.ndarray], mode: str = "P") -> Path:
    write_pictures(root, [labels.shape for labels in maps])
    (root / "labels/query").mkdir(parents=True, exist_ok=True)
    for path, labels in zip(PATHS, maps, strict=True):
        image = Image.fromarray(labels)
        if mode == "P":
            image.putpalette(PALETTE)
        image.save((root / "labels" / path).with_suffix(".png"))
    return root / "labels"


def write_iuv(root: Path, maps: list[np.ndarray], suffix: str = "_IUV") -> Path:
    """I, U, V through OpenCV, as DensePose's tools do."""
    write_pictures(root, [iuv.shape[:2] for iuv in maps])
    (root / "iuv/query").mkdir(parents=True, exist_ok=True)
    for path, iuv in zip(PATHS, maps, strict=True):
        place = root / "iuv" / path
        cv2.imwrite(str(place.with_name(f"{place.stem}{suffix}.png")), iuv)
    return root / "iuv"


def parser(source: Path, labels: str, height: int = HEIGHT, width: int = WIDTH, paths=PATHS, **more) -> Precomputed:
    raw = source.parent / "raw"
    return Precomputed(source, labels=labels, raw=raw, paths=paths, height=height, width=width, **more)


def parsed(forward: Precomputed, paths=PATHS) -> dict[str, np.ndarray]:
    return {name: maps.numpy() for name, maps in forward(torch.zeros(len(paths), 3, 4, 4), list(paths)).items()}


@pytest.mark.parametrize("mode", ["P", "L"])
def test_label_pngs_at_the_caches_size(tmp_path, mode):
    maps = [random_labels(18, HEIGHT, WIDTH, seed) for seed in range(3)]
    forward = parser(write_labels(tmp_path, maps, mode), "atr18")
    result = parsed(forward, [*PATHS, ""])
    assert (forward.taxonomy, forward.uv) == ("lip20", False) and result.keys() == {"native", "parts8", "parts4"}
    for row, labels in enumerate(maps):
        expected = forward.map.native(labels)
        np.testing.assert_array_equal(result["native"][row], expected)
        np.testing.assert_array_equal(result["parts8"][row].argmax(0), parts8_from_native(expected, "lip20"))
        np.testing.assert_array_equal(result["parts4"][row].argmax(0), LIP20_TO_PARTS4[expected])
    assert set(np.unique(result["parts8"])) == {0, 1} and not result["native"][3].any()
    assert (result["parts8"][3, 0] == 1).all()


def test_a_larger_map_shrinks_by_area_and_a_smaller_one_grows_to_the_nearest(tmp_path):
    maps = [random_labels(7, HEIGHT * 2, WIDTH * 2, seed) for seed in range(3)]
    small = parsed(parser(write_labels(tmp_path, maps), "pascal7", height=HEIGHT // 2, width=WIDTH // 2))
    for row, labels in enumerate(maps):
        cells = labels.reshape(HEIGHT // 2, 4, WIDTH // 2, 4).swapaxes(1, 2).reshape(-1, 16)
        shares = np.stack([(cells == label).mean(1) for label in range(7)]).reshape(7, HEIGHT // 2, WIDTH // 2)
        np.testing.assert_allclose(small["parts8"][row, :7], shares, atol=1e-6)  # PASCAL's order is the parts'
        assert not small["parts8"][row, 7].any()
    big = parsed(parser(tmp_path / "labels", "pascal7", height=HEIGHT * 4, width=WIDTH * 4))
    for row, labels in enumerate(maps):
        np.testing.assert_array_equal(big["parts8"][row].argmax(0), labels.repeat(2, 0).repeat(2, 1))


def iuv_in(labels: np.ndarray) -> np.ndarray:
    return np.dstack([labels] * 3)


def iuv_of(person) -> np.ndarray:
    return np.concatenate([person.index[..., None], person.uv], -1)


@pytest.mark.parametrize(("labels", "suffix"), [("iuv", "_IUV"), ("iuv", ""), ("iuv-rgb", "")])
def test_iuv_pngs_give_back_the_renderers_maps(tmp_path, labels, suffix):
    maps = [iuv_of(person) for person in people(3)]
    source = write_iuv(tmp_path, [iuv[..., ::-1] for iuv in maps] if labels == "iuv-rgb" else maps, suffix)
    forward = parser(source, labels)
    result = parsed(forward)
    assert (forward.taxonomy, forward.uv) == ("densepose24", True)
    for row, person in enumerate(people(3)):
        np.testing.assert_array_equal(result["native"][row], person.index)
        np.testing.assert_allclose(result["uv"][row] * 255, person.uv, atol=1e-3)
        np.testing.assert_array_equal(result["parts8"][row].argmax(0), DENSEPOSE24_TO_PARTS8[person.index])
    kept = quantise({name: torch.from_numpy(maps) for name, maps in result.items()})
    assert kept["valid"].all() and np.array_equal(kept["uv"], np.stack([person.uv for person in people(3)]))


def test_the_wrong_order_of_channels_is_noticed(tmp_path):
    source = write_iuv(tmp_path, [iuv_of(person) for person in people(3)])
    with pytest.raises(InputError, match=r"0000_IUV\.png.*read as iuv-rgb.*try iuv"):
        parsed(parser(source, "iuv-rgb"))


def test_shrunken_uv_is_the_mean_of_its_own_label():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (12, 8)).astype(np.uint8)
    uv = random.integers(0, 256, (12, 8, 2)).astype(np.uint8) * (labels > 0)[..., None]
    fitted = label_shares(labels, 25, 3, 4).argmax(0)
    result = fit_uv(labels, uv, fitted)
    for row, column in np.ndindex(3, 4):
        cell = slice(row * 4, row * 4 + 4), slice(column * 2, column * 2 + 2)
        label = fitted[row, column]
        assert (labels[cell] == label).sum() == max((labels[cell] == other).sum() for other in range(4))
        expected = uv[cell][labels[cell] == label].mean(0) / 255 if label else (0, 0)
        np.testing.assert_allclose(result[row, column], expected, atol=1e-6)


def test_what_is_missing_is_told_at_once(tmp_path):
    source = write_labels(tmp_path, [random_labels(20, 8, 8)] * 3)
    (source / "query/0001.png").unlink()
    with pytest.raises(InputError, match=r"no parse of 'query/0001.jpg' \(1 of 3 are missing; looked for .*0001\.png"):
        parser(source, "lip20")
    with pytest.raises(InputError, match="unknown label map 'lip'.*atr18"):
        parser(source, "lip")


def test_labels_that_are_none_are_refused(tmp_path):
    source = write_labels(tmp_path, [random_labels(20, 8, 8)] * 3)
    place = source / "query/0001.png"
    Image.fromarray(np.full((8, 8), 20, np.uint8)).save(place)
    with pytest.raises(InputError, match=r"0001\.png': holds the label 20 where 'lip20' knows 20"):
        parsed(parser(source, "lip20"))
    for data, words in ((b"", "damaged or no PNG"), (b"PNG", "damaged or no PNG"),
                        (place.read_bytes()[:40], "damaged or no PNG")):
        place.write_bytes(data)
        with pytest.raises(InputError, match=rf"0001\.png.*{words}"):
            parsed(parser(source, "lip20"))


def _png(labels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(labels).save(data, "PNG")
    return data.getvalue()


GREY, COLOUR = _png(random_labels(20, 16, 16)), _png(random_labels(20, 16, 16)[..., None].repeat(3, -1))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(8, 200), st.integers(0, 255)), max_size=4), st.integers(0, 200), st.booleans())
def test_damaged_pngs_give_labels_or_one_sentence(tmp_path_factory, changes, cut, grey):
    data = bytearray(GREY if grey else COLOUR)
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(data[:len(data) - cut])
    try:
        labels = read_label_png(path) if grey else read_iuv(path, red_first=True)[0]
        assert labels.dtype == np.uint8 and labels.ndim == 2
    except InputError as error:
        assert "fuzz.png" in str(error) and "\n" not in str(error)


def write_png(path: Path, values: np.ndarray, *, bits: int, colour: int, palette: bytes = b"") -> None:
    """A PNG by its specification: values (H, W, channels), packed to `bits` a channel, rows unfiltered."""
    height, width, _ = values.shape
    digits = "".join
    rows = b""
    for row in values:
        text = digits(f"{value:0{bits}b}" for value in row.ravel())
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + (chunk(b"PLTE", palette) if palette else b"")
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colour", [0, 3])
def test_labels_of_few_bits_are_the_numbers_that_were_written(tmp_path, bits, colour):
    values = np.random.default_rng(bits).integers(0, min(2 ** bits, 20), (13, 11, 1))
    write_png(tmp_path / "a.png", values, bits=bits, colour=colour, palette=bytes(range(60)) if colour else b"")
    np.testing.assert_array_equal(read_label_png(tmp_path / "a.png"), values[..., 0])


NO_LABELS = {"RGB": (8, 2, 3), "RGB and alpha": (8, 6, 4), "grey and alpha": (8, 4, 2), "16 bits": (16, 0, 1),
             "RGB, 16 bits": (16, 2, 3)}
NO_IUV = {"grey, 8 bits": (8, 0, 1), "grey, 1 bits": (1, 0, 1), "palette": (8, 3, 1), "16 bits": (16, 2, 3),
          "grey and alpha": (8, 4, 2), "RGB and alpha": (8, 6, 4)}


@pytest.mark.parametrize(("labels", "words"), [
    *(("lip20", words) for words in NO_LABELS), *((kind, words) for kind in ("iuv", "iuv-rgb") for words in NO_IUV)])
def test_channels_and_bits_that_are_none_of_a_parse_are_refused_at_once(tmp_path, labels, words):
    """Before anything is parsed; read as 8 bits, 16 are all background."""
    bits, colour, channels = (NO_LABELS if labels == "lip20" else NO_IUV)[words]
    maps = [np.full((16, 8), 2, np.uint8)] * 3
    source = write_labels(tmp_path, maps) if labels == "lip20" else write_iuv(tmp_path, [iuv_in(one) for one in maps])
    place = next(source.glob("query/0001*.png"))
    palette = bytes(60) if colour == 3 else b""
    write_png(place, np.ones((16, 8, channels), int), bits=bits, colour=colour, palette=palette)
    with pytest.raises(InputError, match=rf"1 of 3 parses are not their images.*{place.name}' .*{words}") as caught:
        parser(source, labels)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=rf"{place.name}.*{words}"):  # and by whoever reads one alone
        read_label_png(place) if labels == "lip20" else read_iuv(place, red_first=True)


def test_an_iuv_of_16_bits_is_not_a_picture_of_nobody(tmp_path):
    write_pictures(tmp_path, [(128, 64)], ["a.jpg"])
    (tmp_path / "iuv").mkdir()
    iuv = np.zeros((128, 64, 3), np.uint16)
    iuv[10:100, 10:50] = (2, 128, 64)
    cv2.imwrite(str(tmp_path / "iuv/a.png"), iuv)
    with pytest.raises(InputError, match=r"1 of 1 parses.*a\.png' is RGB, 16 bits where I, U, V are .* 8 bits"):
        parser(tmp_path / "iuv", "iuv", paths=["a.jpg"])


@pytest.mark.parametrize("labels", ["lip20", "iuv", "iuv-rgb"])
@pytest.mark.parametrize("size", [(32, 16), (8, 4), (16, 9), (15, 8), (8, 16), (473, 473)])
def test_another_size_than_the_image_s_is_refused_at_once(tmp_path, labels, size):
    good, other = np.zeros((16, 8), np.uint8), np.zeros(size, np.uint8)
    maps = [good, other, other]
    source = write_labels(tmp_path, maps) if labels == "lip20" else write_iuv(tmp_path, [iuv_in(one) for one in maps])
    write_pictures(tmp_path, [(16, 8)] * 3)
    with pytest.raises(InputError, match=rf"2 of 3 parses are not their images.*0001.* is {size[0]}x{size[1]} where "
                                         r"'query/0001.jpg' is 16x8;.*0002.*`scale` how much \(it is 1\)"):
        parser(source, labels)


def test_a_declared_scale_is_the_only_other_size(tmp_path):
    maps = [random_labels(7, HEIGHT, WIDTH, seed) for seed in range(3)]
    source = write_labels(tmp_path, maps)
    write_pictures(tmp_path, [(HEIGHT // 2, WIDTH // 2)] * 3)
    for row, labels in enumerate(parsed(parser(source, "pascal7", scale=2))["parts8"]):
        np.testing.assert_array_equal(labels.argmax(0), maps[row])
    for scale in (1, 1.9, 2.1, 0.5, 4):
        with pytest.raises(InputError, match=rf"3 of 3 parses .*128x64 where .* is 64x32.*it is {scale}\)"):
            parser(source, "pascal7", scale=scale)
    write_pictures(tmp_path, [(43, 21)] * 3)  # 128 / 3 and 64 / 3, rounded
    assert parsed(parser(source, "pascal7", scale=3))["native"].any()


def test_no_image_has_another_ones_parse(tmp_path):
    """a.jpg and a.png, a and a_IUV, one file under two names, an image in the parse's place."""
    random = np.random.default_rng(0)
    paths = ["a.jpg", "a.png"]
    write_pictures(tmp_path, [(16, 8)] * 2, paths)
    source = tmp_path / "labels"
    source.mkdir()
    values = [random.integers(0, 20, (16, 8)).astype(np.uint8) for _ in paths]
    Image.fromarray(values[0]).save(source / "a.png")
    with pytest.raises(InputError, match=r"a\.png': could be the parse of 'a\.jpg' and of 'a\.png'.*a\.png\.png"):
        parser(source, "lip20", paths=paths)
    with pytest.raises(InputError, match=r"holds no parse of 'b\.jpg'"):
        parser(source, "lip20", paths=["a.jpg", "b.jpg"])
    Image.fromarray(values[0]).save(source / "a.jpg.png")
    with pytest.raises(InputError, match=r"a\.png': and '.*a\.jpg\.png' could both be the parse of 'a\.jpg'"):
        parser(source, "lip20", paths=paths)
    (source / "a.png").unlink()
    Image.fromarray(values[1]).save(source / "a.png.png")
    result = parsed(parser(source, "lip20", 16, 8, paths=paths), paths)
    np.testing.assert_array_equal(result["native"], values)

    write_pictures(tmp_path, [(16, 8)] * 2, ["b.jpg", "b_IUV.jpg"])
    write_png(source / "b_IUV.png", np.ones((16, 8, 3), int), bits=8, colour=2)
    with pytest.raises(InputError, match=r"b_IUV\.png': could be the parse of 'b\.jpg' and of 'b_IUV\.jpg'"):
        parser(source, "iuv", paths=["b.jpg", "b_IUV.jpg"])


def test_an_image_is_not_a_parse(tmp_path):
    paths = ["a.png", "b.jpg"]
    write_pictures(tmp_path, [(16, 8)] * 2, paths)
    write_png(tmp_path / "raw/a.png", np.ones((16, 8, 1), int), bits=8, colour=0)  # grey, as a label map is
    with pytest.raises(InputError, match=r"a\.png': is the image 'a\.png' itself.*folder of their own"):
        Precomputed(tmp_path / "raw", labels="lip20", raw=tmp_path / "raw", paths=paths, height=16, width=8)
    write_png(tmp_path / "raw/b.png", np.ones((16, 8, 1), int), bits=8, colour=0)
    with pytest.raises(InputError, match=r"b\.png': is the image 'b\.png' itself, and is looked for as .* of 'b\.jpg'"):
        Precomputed(tmp_path / "raw", labels="lip20", raw=tmp_path / "raw", paths=["b.jpg", "b.png"], height=9, width=8)
    (tmp_path / "linked").symlink_to(tmp_path / "raw")
    with pytest.raises(InputError, match=r"a\.png': is the image 'a\.png' itself"):
        parser(tmp_path / "linked", "lip20", paths=paths)
    (tmp_path / "copied").mkdir()
    (tmp_path / "copied/a.png").write_bytes((tmp_path / "raw/a.png").read_bytes())
    with pytest.raises(InputError, match=r"1 of 1 parses.*copied/a\.png' is the image 'a\.png' itself"):
        parser(tmp_path / "copied", "lip20", paths=paths[:1])


def test_images_that_lie_on_their_side_are_as_large_as_they_are_read(tmp_path):
    """A parse is compared with the turned image; one as the file stores it is refused."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "labels").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(tmp_path / "raw/a.jpg", exif=exif)
    Image.fromarray(np.full((16, 8), 5, np.uint8)).save(tmp_path / "labels/a.png")
    assert (parsed(parser(tmp_path / "labels", "lip20", paths=["a.jpg"]), ["a.jpg"])["native"] == 5).all()
    Image.fromarray(np.full((8, 16), 5, np.uint8)).save(tmp_path / "labels/a.png")
    with pytest.raises(InputError, match="is 8x16 where 'a.jpg' is 16x8"):
        parser(tmp_path / "labels", "lip20", paths=["a.jpg"])


def test_other_kinds_of_files_are_no_parses(tmp_path):
    source = write_labels(tmp_path, [random_labels(20, 16, 8)] * 3)
    (source / "query/0001.png").unlink()
    np.save(source / "query/0001.npy", random_labels(20, 16, 8))
    np.savez(source / "query/0001.npz", random_labels(20, 16, 8))
    with pytest.raises(InputError, match=r"no parse of 'query/0001.jpg' \(1 of 3 are missing; looked for .*0001\.png"):
        parser(source, "lip20")
    write_image(source / "query/0001.jpg", np.zeros((16, 8, 3), np.uint8))
    (source / "query/0001.jpg").rename(source / "query/0001.png")
    with pytest.raises(InputError, match=r"1 of 3 .*0001\.png': is damaged or no PNG"):
        parser(source, "lip20")


def test_an_image_that_cannot_be_read_is_nobody_s_and_the_engine_s_to_say(tmp_path):
    source = write_labels(tmp_path, [np.full((16, 8), 5, np.uint8)] * 3)
    (tmp_path / "raw" / PATHS[1]).write_bytes(b"")
    forward = parser(source, "lip20")
    assert parsed(forward)["native"].any((1, 2)).tolist() == [True, False, True]
    write_pictures(tmp_path, [(16, 8)] * 3)
    with pytest.raises(InputError, match="could not be read before and now it can; run again"):
        parsed(forward)


def test_a_parse_that_changes_meanwhile_is_noticed(tmp_path):
    source = write_labels(tmp_path, [np.full((16, 8), 5, np.uint8)] * 3)
    forward = parser(source, "lip20")
    Image.fromarray(np.full((8, 8), 5, np.uint8)).save(source / "query/0001.png")
    with pytest.raises(InputError, match=r"0001\.png.*changed while it was being read"):
        parsed(forward)


def test_a_sources_hash_is_that_of_names_and_contents(tmp_path):
    source = write_labels(tmp_path, [random_labels(20, 8, 8)] * 3)
    before = source_sha256(source)
    assert before == source_sha256(str(source)) and before != source_sha256(source / "query/0000.png")
    data = (source / "query/0001.png").read_bytes()
    (source / "query/0001.png").rename(source / "query/0009.png")
    assert source_sha256(source) != before
    (source / "query/0009.png").rename(source / "query/0001.png")
    assert source_sha256(source) == before
    (source / "query/0001.png").write_bytes(data + b"x")
    assert source_sha256(source) != before
    with pytest.raises(InputError, match="none.*cannot be read"):
        source_sha256(tmp_path / "none")
