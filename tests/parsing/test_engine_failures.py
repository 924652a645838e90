"""The engine's failures: images and rows that are damaged or strange, and others who are at the same cache."""

import os

import h5py
import numpy as np
import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.base.hdf5 import HeldError
from pipeline.base.images import write_image
from pipeline.caches.cache import Cache
from pipeline.parsing import engine
from pipeline.parsing.engine import parse_images
from tests.helpers.held_file import held
from tests.helpers.parsed_set import COUNT, make_job, parse, soft_forward


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


def test_a_cache_of_an_older_format_is_parsed_anew(root, capsys):
    made = parse(root)
    with h5py.File(root / "parts.h5", "r+") as file:
        del file.attrs["format"]
    assert parse(root) == made
    assert "has format 1, and this version reads format 2" in capsys.readouterr().out


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
