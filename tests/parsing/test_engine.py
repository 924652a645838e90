"""The engine: what it keeps of a parser against naive loops; the same bytes whatever happens on the way."""

import dataclasses
import hashlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from models.parsers.torchvision_parsers import Parser, build_parser, save_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8_TO_PARTS4, TAXONOMIES, parts8_from_native
from pipeline.base.errors import InputError
from pipeline.base.hdf5 import HeldError
from pipeline.base.images import fit, read_image, write_image
from pipeline.caches.cache import Cache, compress
from pipeline.datasets.index import read_index, write_index
from pipeline.parsing import engine
from pipeline.parsing.engine import Job, parse_images, quantise, shares
from pipeline.parsing.oracle import Oracle
from stages import parse as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.held_file import held
from tests.helpers.plain_resize import plain_resize
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

COUNT = 22  # six batches of four, the last padded


def make_job(root: Path, **changes) -> Job:
    index = read_index(root / "index.csv")
    job = Job(keys=index["image"].tolist(), paths=index["path"].tolist(), raw=root / "raw", maker='{"parser": "fake"}',
              taxonomy="densepose24", uv=True, height=HEIGHT, width=WIDTH, batch=4, device="cpu")
    return dataclasses.replace(job, **changes)


def soft_forward(images: torch.Tensor, paths: list[str]) -> dict[str, torch.Tensor]:
    """A parser whose answer depends on the picture's pixels alone."""
    values = images.float() / 255
    logits = torch.stack([torch.sin(values.sum(1) * (part + 1)) * 4 for part in range(8)], 1)
    native = (values[:, 0] * 24.99).to(torch.uint8)
    return {"native": native, "parts8": logits.softmax(1), "uv": values[:, 1:].permute(0, 2, 3, 1)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("set")
    write_set(root, COUNT)
    return root


@pytest.fixture
def root(pictures, tmp_path) -> Path:
    shutil.copytree(pictures, tmp_path / "set")
    return tmp_path / "set"


def parse(root: Path, forward=soft_forward, name: str = "parts.h5", **changes) -> str:
    """The MD5 of parts.h5."""
    failed = parse_images(make_job(root, **changes), forward, root / name, scratch=root / "scratch")
    assert failed == []
    return hashlib.md5((root / name).read_bytes()).hexdigest()


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


def test_a_cache_of_an_older_format_is_parsed_anew(root, capsys):
    made = parse(root)
    with h5py.File(root / "parts.h5", "r+") as file:
        del file.attrs["format"]
    assert parse(root) == made
    assert "has format 1, and this version reads format 2" in capsys.readouterr().out


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


def test_a_killed_parse_goes_on_from_its_units(root, monkeypatch):
    monkeypatch.setattr(engine, "TOGETHER", 4)  # of the 6 batches
    done = []

    def dying(images, paths):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(paths)
        return soft_forward(images, paths)

    with pytest.raises(KeyboardInterrupt):
        parse(root, dying)
    again = []
    parse(root, lambda images, paths: (again.append(paths), soft_forward(images, paths))[1])
    assert 2 <= len(again) <= 5 and done[0] not in again


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


def test_damaged_rows_of_an_old_cache_are_parsed_anew(root, capsys):
    expected = parse(root)
    path = root / "parts.h5"
    data = bytearray(path.read_bytes())
    data[data.index(Cache(path).chunk("labels", 6)) + 9] ^= 1
    path.write_bytes(data)
    seen = []
    assert parse(root, lambda images, paths: (seen.extend(filter(None, paths)), soft_forward(images, paths))[1]
                 ) == expected
    assert seen == [make_job(root).paths[6]] and "damaged" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:2000])
    assert parse(root) == expected and "damaged or no cache" in capsys.readouterr().out


def test_images_that_cannot_be_read_cost_only_themselves(root):
    expected = parse(root, name="whole.h5")
    job = make_job(root)
    files = [root / "raw" / job.paths[row] for row in (1, 5, 9)]
    kept = [file.read_bytes() for file in files]
    files[0].write_bytes(b"")
    files[1].write_bytes(kept[1][:300] + b"\0" * 20)
    files[2].unlink()
    failed = parse_images(job, soft_forward, root / "parts.h5", scratch=root / "scratch")
    assert failed is not None and [key for key, _ in failed] == [job.keys[row] for row in (1, 5, 9)]
    whole, cache = Cache(root / "whole.h5"), Cache(root / "parts.h5")
    status = cache.column("status")
    assert status[1].startswith("failed: is empty (0 bytes)") and status[9].startswith("failed: cannot be read")
    for row in range(COUNT):
        for name in ("labels", "probs/parts8", "visibility", "uv"):
            if row in (1, 5, 9):
                assert not cache.read(name, row).any()
            else:
                np.testing.assert_array_equal(cache.read(name, row), whole.read(name, row))
    for file, data in zip(files, kept, strict=True):
        file.write_bytes(data)
    seen = []
    assert parse(root, lambda images, paths: (seen.extend(filter(None, paths)), soft_forward(images, paths))[1]
                 ) == expected
    assert seen == [job.paths[row] for row in (1, 5, 9)]


def test_an_image_that_changes_meanwhile_stops_the_parse(root, monkeypatch):
    monkeypatch.setattr(engine, "image_sha256", lambda path: "0" * 64)  # what was found before it changed
    with pytest.raises(InputError, match=r"query/0000.*changed while it was being parsed; run again"):
        parse(root)


@pytest.mark.parametrize("spoil", ["parts8", "uv"])
def test_a_parser_that_returns_nan_fails_that_image_alone(root, spoil):
    def broken(images, paths):
        output = soft_forward(images, paths)
        if make_job(root).paths[6] in paths:
            output[spoil][2, 0, 0, 0] = torch.nan
        return output

    failed = parse_images(make_job(root), broken, root / "parts.h5", scratch=root / "scratch")
    assert failed is not None and [key for key, _ in failed] == [make_job(root).keys[6]]
    assert "NaN" in failed[0][1]


def test_a_second_parse_is_told_who_is_at_it(root):
    def nested(images, paths):
        parse_images(make_job(root), soft_forward, root / "parts.h5", scratch=root / "scratch")
        return soft_forward(images, paths)

    with pytest.raises(InputError, match=rf"parts\.h5.*process {os.getpid()} on .* since"):
        parse(root, nested)


def test_an_old_cache_that_another_process_holds_open_is_not_parsed_anew(root):
    parse(root)
    with held(root / "parts.h5", "r+") as process:
        during = (root / "parts.h5").read_bytes()
        with pytest.raises(HeldError, match=r"parts\.h5': another process has it open for writing"):
            parse(root, lambda images, paths: pytest.fail("it parses"))
        assert (root / "parts.h5").read_bytes() == during
        process.communicate()
    parse(root, lambda images, paths: pytest.fail("it parses"))


def test_strange_images_are_made_to_fit(root):
    job = make_job(root)
    random = np.random.default_rng(0)
    for row, shape in ((0, (1, 1, 3)), (1, (800, 400, 3)), (3, (5, 300, 3))):
        write_image(root / "raw" / job.paths[row], random.integers(0, 256, shape).astype(np.uint8))
    seen = {}
    parse(root, lambda images, paths: (seen.update(zip(paths, images, strict=True)), soft_forward(images, paths))[1])
    assert len(seen[job.paths[0]].unique()) <= 3  # one pixel, everywhere
    assert abs(seen[job.paths[1]].float().mean() - 127.5) < 8 and seen[job.paths[1]].float().std() < 20


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


def network(taxonomy: str, path: str) -> Parser:
    """A random LR-ASPP at 64x32, saved."""
    torch.manual_seed(0)
    every_label = np.arange(len(TAXONOMIES[taxonomy]), dtype=np.uint8)[:, None, None]
    table = torch.tensor(parts8_from_native(every_label, taxonomy).ravel()).long()
    exact = taxonomy == "densepose24"
    parser = build_parser(architecture="lraspp", taxonomy=taxonomy, uv=exact, height=64, width=32,
                          to_parts8=torch.eye(8)[:, table] if exact else None,
                          to_parts4=torch.eye(5)[:, torch.tensor(PARTS8_TO_PARTS4)[table].long()])
    save_parser(parser, path, made={})
    return parser.eval()


def run_stage(index: pd.DataFrame, **changes) -> Cache:
    """The stage parse over an index; changes: of the cache's parameters, and its `source`."""
    write_index(index, "data/index/tiny.csv")
    cache = {"parser": "lraspp", "height": 64, "width": 32, "batch": 4, "threads": 1} | changes
    plan = {"dataset": "tiny", "index": "data/index/tiny.csv", "raw": "raw",
            "source": cache.pop("source", "weights.safetensors")}
    stage.run(bare_experiment(params={"caches": {"tiny": cache}}, plan={"parse": {"tiny": plan}}), "tiny")
    return Cache("data/cache/tiny/parts.h5")


def test_the_stage_with_a_network_that_knows_densepose(root, monkeypatch):
    """Batch-mates and places in a batch change no byte: appending at either end gives the same file."""
    monkeypatch.chdir(root)
    parser = network("densepose24", "weights.safetensors")
    index = read_index("index.csv").iloc[:10]
    run_stage(index.iloc[:7])
    appended = run_stage(index).path.read_bytes()
    Path("data/cache/tiny/parts.h5").unlink()
    run_stage(index.iloc[1:])
    written = run_stage(index)
    assert written.path.read_bytes() == appended
    assert written.maker["exact"] is True and written.maker["batch"] == 4
    maps = quantise(parser.parse(stack(root, index["path"][:4])))
    for name in ("native", "uv", "probs/parts8", "probs/parts4", "entropy", "visibility"):
        np.testing.assert_array_equal(written.read(name, 2), maps[name][2])
    (root / "raw" / index["path"][3]).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 10 images have no parse, the first 'query/0003.*restore"):
        run_stage(index)


def test_the_stage_with_a_network_that_knows_lip(root, monkeypatch):
    monkeypatch.chdir(root)
    parser = network("lip20", "weights.safetensors")
    index = read_index("index.csv").iloc[:4]
    written = run_stage(index)
    assert written.maker["exact"] is False and "uv" not in written
    output = parser.parse(stack(root, index["path"]))
    for row in range(4):
        native = written.read("native", row)
        np.testing.assert_array_equal(native, output["native"][row])
        np.testing.assert_array_equal(written.read("labels", row), parts8_from_native(native, "lip20"))
        head = output["parts4"][row, 1].reshape(16, 4, 8, 4).mean((1, 3)) * 255
        for name in ("probs/parts4", "probs/parts8"):  # less than a step of rounding
            np.testing.assert_array_less(abs(written.read(name, row)[1] - head.numpy()), 5)
    with pytest.raises(InputError, match="holds lraspp at 64x32 where the cache asks for lraspp at 128x64"):
        run_stage(index, height=128, width=64)


def test_another_instruction_set_gives_nearly_the_same_labels(root, monkeypatch):
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("this processor has no AVX to restrict")
    monkeypatch.chdir(root)
    network("densepose24", "weights.safetensors")
    index = read_index("index.csv").iloc[:8]
    here = run_stage(index)
    kept = [here.read("labels", row) for row in range(8)]
    maker = here.maker
    code = "import tests.parsing.test_engine as t; t.run_stage(t.read_index('index.csv').iloc[:8])"
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | limits)
    there = Cache("data/cache/tiny/parts.h5")
    same = np.mean([there.read("labels", row) == kept[row] for row in range(8)])
    assert same >= 0.999
    assert there.maker["machine"] == "AVX2" and there.maker | {"machine": maker["machine"]} == maker


def stack(root: Path, paths: Iterable[str]) -> torch.Tensor:
    """Images as the engine hands them to a network, (B,3,64,32) uint8."""
    return torch.stack([torch.from_numpy(fit(read_image(root / "raw" / path), 64, 32)) for path in paths]
                       ).permute(0, 3, 1, 2)


def test_stage_errors_name_the_remedy(root, monkeypatch):
    monkeypatch.chdir(root)
    shutil.copy("index.csv", "some.csv")
    index = read_index("index.csv")
    for message, changes in {
            r"none\.h5.*stage render": {"source": "raw/none.h5"},
            r"some\.csv.*damaged or holds no labels.*stage render": {"source": "some.csv"},
            r"30x16 is no multiple of 4": {"source": "raw/labels.h5", "height": 30, "width": 16},
            r"none\.h5.*train_parser": {"parser": "lraspp", "source": "raw/none.h5"}}.items():
        with pytest.raises(InputError, match=message):
            run_stage(index, **{"parser": "oracle", **changes})
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        stage.choose_device("gpu", threads=1)


def test_the_file_says_what_made_it(root, monkeypatch):
    monkeypatch.chdir(root)
    cache = run_stage(read_index("index.csv"), parser="oracle", source="raw/labels.h5", height=HEIGHT, width=WIDTH)
    assert {"parser": "oracle", "taxonomy": "densepose24", "exact": True, "height": HEIGHT, "width": WIDTH,
            "batch": 4, "threads": 1, "torch": torch.__version__, "format": 1,
            "source_sha256": hashlib.sha256(Path("raw/labels.h5").read_bytes()).hexdigest()}.items() \
        <= cache.maker.items()
    assert cache.chunk("labels", 2) == compress(np.zeros((HEIGHT, WIDTH), np.uint8))  # nobody is there
