"""Faults around a parse: full disks, readers while the file is replaced, pictures of every kind, odd names."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from benchmarks.kills import PLACES
from pipeline.base.errors import InputError
from pipeline.base.images import read_bytes
from pipeline.caches import resumable
from pipeline.caches.cache import Cache
from pipeline.caches.resumable import hold, run_units, save_unit
from pipeline.datasets.index import COLUMNS, read_index, write_index
from pipeline.parsing.engine import Job, parse_images
from tests.helpers.parsed_set import COUNT, make_job, soft_forward
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

ROOM = 400_000  # bytes of the small disk; the parse needs about 200,000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("set")
    write_set(root, COUNT)
    return root


@pytest.fixture
def root(pictures, tmp_path) -> Path:
    shutil.copytree(pictures, tmp_path / "set")
    (tmp_path / "set/out").mkdir()
    return tmp_path / "set"


Parse = Callable[..., tuple[int, int, str]]


@pytest.fixture(scope="module")
def parser() -> Iterator[Callable[[Path, int], list]]:
    """A process that forks one for each parse."""
    script = Path(__file__).parents[1] / "helpers" / "parse_once.py"
    environment = os.environ | {"PYTHONPATH": f"{script.parents[2]}:{script.parent}"}
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, env=environment) as process:
        def call(root: Path, limit: int) -> list:
            print(json.dumps([str(root), limit]), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield call
        process.stdin.close()


@pytest.fixture
def parse_once(root, parser) -> Parse:
    """A parse in a process of its own: exit status, batches parsed, stderr."""
    return lambda limit=0: tuple(parser(root, limit))


def expected_md5(root: Path) -> str:
    assert parse_images(make_job(root), soft_forward, root / "whole.h5", scratch=root / "other-scratch") == []
    return hashlib.md5((root / "whole.h5").read_bytes()).hexdigest()


def check_refused(said: tuple[int, int, str], *words: str) -> None:
    """Exit status 2 and one sentence, no traceback, not HDF5's own either."""
    status, _, error = said
    lines = [line for line in error.splitlines() if "it/s" not in line and "s/it" not in line]
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: "), error
    assert all(word in lines[0] for word in ("cannot be written", "run again", *words)), lines


@pytest.fixture
def small_disk(root) -> Iterator[Path]:
    """root/out on a disk of ROOM bytes."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(root / "out")],
                             capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield root / "out"
    subprocess.run(["umount", str(root / "out")], check=True)


def fill(disk: Path, pages: int) -> Path:
    """Fill the disk up to so many free pages."""
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes((free.f_bavail - pages) * free.f_bsize))
    return filler


def stored(disk: Path) -> list[Path]:
    """The units on a disk, on which nothing half is left."""
    assert not list(disk.rglob("*.tmp"))
    return list(disk.rglob("*.unit"))


def test_a_full_disk_keeps_units_and_goes_on_after_room_was_made(root, parse_once, small_disk):
    """Full from the start, among the units, at the packing's first bytes and at its last. A unit takes 3 pages of 4 kB,
    the file 14."""
    expected = expected_md5(root)
    filler = fill(small_disk, 0)
    check_refused(parse_once())
    filler.unlink()
    filler = fill(small_disk, 9)
    check_refused(parse_once(), ".unit", "finished units are kept")
    kept = len(stored(small_disk))
    assert 0 < kept < 6
    for pages in (3 * (6 - kept) + 5, 12):
        filler.unlink()
        filler = fill(small_disk, pages)
        said = parse_once()
        check_refused(said, "parts.h5")
        assert said[1] == 6 - kept and not (small_disk / "parts.h5").exists()
        kept = len(stored(small_disk))
        assert kept == 6
    filler.unlink()
    assert parse_once()[:2] == (0, 0)
    assert hashlib.md5((small_disk / "parts.h5").read_bytes()).hexdigest() == expected


@pytest.mark.parametrize(("limit", "what"), [(5_000, ".unit"), (30_000, "parts.h5")])
def test_a_disk_that_takes_no_large_file(root, parse_once, limit, what):
    """The same where no disk can be mounted: no file may pass `limit`; a unit has 9 kB, the file 56."""
    check_refused(parse_once(limit), what)
    assert len(stored(root)) == (0 if what == ".unit" else 6) and not (root / "out/parts.h5").exists()
    assert parse_once()[:2] == (0, 6 if what == ".unit" else 0)
    assert hashlib.md5((root / "out/parts.h5").read_bytes()).hexdigest() == expected_md5(root)


def test_a_full_disk_under_a_warp_s_or_any_other_unit(tmp_path):
    """What the engine below parse and warp says where it cannot write."""
    folder = tmp_path / "closed"
    folder.write_text("a file where a folder should be")
    for work in (lambda: run_units(folder, identity=["x"], count=1, rank=0, world=1, what="'out'",
                                   produce=lambda numbers, save: None, pack=lambda rows: None),
                 lambda: save_unit(folder / "00000000.unit", [{"key": "a"}])):
        with pytest.raises(InputError, match="closed.*cannot be written .(File exists|.* is no folder).; make room"):
            work()


def test_a_file_system_without_locks_is_a_sentence(tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(resumable.fcntl, "flock", none)
    with pytest.raises(InputError, match=r"lock-0'.*No locks available.*docs/caches\.md"), \
            hold(tmp_path / "lock-0", "'parts.h5'"):
        pass


def test_two_processes_at_one_unit_leave_it_whole(tmp_path, monkeypatch):
    """Two jobs of other numbers of ranks may make the same unit; neither renames what the other is writing."""
    rows = [{"key": "a", "labels": b"1234"}]
    replace = Path.replace

    def meanwhile(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(os, "getpid", lambda: 1)  # another process
        save_unit(target, rows)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    save_unit(tmp_path / "00000000.unit", rows)
    assert resumable.load_unit(tmp_path / "00000000.unit") == rows and len(list(tmp_path.iterdir())) == 1


def subset(job: Job, rows: slice) -> Job:
    return dataclasses.replace(job, keys=job.keys[rows], paths=job.paths[rows])


def test_readers_see_the_old_file_or_the_new_one(root):
    """A thread reads the file whole, again and again, while parses replace it."""
    job, path = make_job(root), root / "parts.h5"
    jobs = [subset(job, slice(0, 9)), subset(job, slice(5, None))]
    expected = []
    for each in jobs:
        parse_images(each, soft_forward, path, scratch=root / "scratch")
        expected.append(everything(path))
    seen: list[dict[str, list]] = []
    faults: list[BaseException] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                seen.append(everything(path))
            except BaseException as error:
                faults.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(10):
        parse_images(jobs[number % 2], soft_forward, path, scratch=root / "scratch")
    done.set()
    watcher.join()
    assert not faults and all(found in expected for found in seen)
    assert {len(found["key"]) for found in seen} == {9, COUNT - 5}


def everything(path: Path) -> dict[str, list]:
    """All that a cache holds."""
    cache = Cache(path)
    names = ("native", "labels", "uv", "probs/parts8", "probs/parts4", "entropy", "visibility")
    found = {name: [cache.read(name, row).tobytes() for row in range(len(cache))] for name in names}
    found |= {name: cache.column(name).tolist() for name in ("key", "image_sha256", "status")}
    cache.close()
    return found


def smooth(height: int, width: int) -> Image.Image:
    """A picture without fine detail, so that every decoder and every way of shrinking gives nearly the same."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    planes = [40 + 170 * y, 220 - 160 * x, 60 + 120 * x * y]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def save_16(path: Path, picture: Image.Image, *, grey: bool) -> None:
    pixels = np.asarray(picture.convert("L")) if grey else np.asarray(picture)[..., ::-1]
    assert cv2.imwrite(str(path), pixels.astype(np.uint16) * 257)


def save_turned(path: Path, picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif, quality=95)


PICTURES = {
    "1x1.png": lambda path: smooth(2, 2).crop((0, 0, 1, 1)).save(path),
    "tall.jpg": lambda path: smooth(80, 40).resize((4000, 8000)).save(path, quality=90),
    "wide.jpg": lambda path: smooth(40, 80).resize((8000, 4000)).save(path, quality=90),
    "line.png": lambda path: smooth(300, 2).crop((0, 0, 1, 300)).save(path),
    "grey.png": lambda path: smooth(60, 40).convert("L").save(path),
    "grey.jpg": lambda path: smooth(60, 40).convert("L").save(path, quality=95),
    "grey-alpha.png": lambda path: smooth(60, 40).convert("LA").save(path),
    "alpha.png": lambda path: smooth(60, 40).convert("RGBA").save(path),
    "palette.png": lambda path: smooth(60, 40).quantize(256).save(path),
    "bits.png": lambda path: smooth(60, 40).convert("1").save(path),
    "cmyk.jpg": lambda path: smooth(60, 40).convert("CMYK").save(path, quality=95),
    "colour16.png": lambda path: save_16(path, smooth(60, 40), grey=False),
    "grey16.png": lambda path: save_16(path, smooth(60, 40), grey=True),
    "grey16.tif": lambda path: save_16(path, smooth(60, 40), grey=True),
    "lossless.tif": lambda path: smooth(60, 40).save(path, compression="tiff_lzw"),
    "plain.bmp": lambda path: smooth(60, 40).save(path),
    **{f"turned{number}.jpg": lambda path, number=number: save_turned(path, smooth(60, 40), number)
       for number in range(1, 9)}}


def by_pillow(path: Path) -> np.ndarray:
    """The picture as another library decodes, turns and shrinks it, (HEIGHT, WIDTH, 3)."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
        return np.asarray(image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BOX), float)


def write_pictures(root: Path, names: list[str]) -> Job:
    frame = pd.DataFrame([(f"query/{name}", f"query/{name}", 1, 1, "query") for name in names], columns=COLUMNS)
    write_index(frame, root / "index.csv")
    return make_job(root)


def test_pictures_of_every_kind_reach_the_parser_as_they_look(root):
    for name, save in PICTURES.items():
        save(root / "raw/query" / name)
    job = write_pictures(root, list(PICTURES))
    seen: dict[str, torch.Tensor] = {}
    failed = parse_images(job, lambda images, paths: (seen.update(zip(paths, images, strict=True)),
                                                      soft_forward(images, paths))[1], root / "parts.h5",
                          scratch=root / "scratch")
    assert failed == []
    for name in PICTURES:
        found = seen[f"query/{name}"].permute(1, 2, 0).numpy().astype(float)
        off = np.abs(found - by_pillow(root / "raw/query" / name))
        assert off.mean() < (30 if name == "bits.png" else 6), (name, off.mean(), off.max())
    straight, turned = (seen[f"query/turned{number}.jpg"].float() for number in (1, 3))
    assert (turned - straight.flip(1, 2)).abs().mean() < 3 < (turned - straight).abs().mean()


ODD_NAMES = ["two words.png", " leading.png", "é NFC.png", "e\u0301 NFD.png", "日本.png", "quote'\".png", "a,b;c.png",
             "#hash %20.png", "-dash.png", "x" * 240 + ".png", "🙂.png"]


def test_odd_names_are_parsed_and_found_again(root):
    for number, name in enumerate(ODD_NAMES):
        Image.fromarray(np.full((8, 4, 3), 20 * number, np.uint8)).save(root / "raw/query" / name)
    job = write_pictures(root, ODD_NAMES)
    assert parse_images(job, soft_forward, root / "parts.h5", scratch=root / "scratch") == []
    cache = Cache(root / "parts.h5")
    assert sorted(cache.column("key")) == sorted(f"query/{name}" for name in ODD_NAMES)
    for number, name in enumerate(ODD_NAMES):
        grey = cache.read("native", int(cache.rows([f"query/{name}"])[0]))
        assert (grey == int(20 * number / 255 * 24.99)).all(), name


@pytest.mark.parametrize("name", ["line\nbreak.png", "return\r.png", "nul\0.png", "not utf-8 \udcff.png"])
def test_names_that_no_index_can_hold_are_refused(root, name):
    with pytest.raises(InputError, match="index.csv': the image 'query/.*rename the file"):
        write_pictures(root, [name])
    text = "image,path,pid,camid,split\n" + f'"query/{name}","query/{name}",1,1,query\n'
    (root / "index.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="index.csv': "):
        read_index(root / "index.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_bytes(root / f"raw/query/{name}")


@pytest.mark.slow
def test_thirty_kills_anywhere_change_no_byte(tmp_path):
    """`python -m benchmarks.kills` at the tests' own scale, three at each of ten places."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "benchmarks.kills", "--tiny", "--count", "30", "--home", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False, timeout=3600,
                          env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    log = [json.loads(line) for line in (tmp_path / "tiny/log.jsonl").read_text().splitlines()]
    counts = {place: sum(line["place"] == place for line in log) for place in PLACES}
    assert min(counts.values()) >= 3 and len(log) >= 30
