"""Caches: the same rows give the same bytes, every fault is one sentence, units are whole or absent."""

import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.base.hdf5 import HeldError, open_h5, text
from pipeline.caches.cache import SHA256, Cache, compress, write_cache
from pipeline.caches.resumable import digest, hold, load_unit, missing_units, run_units, save_unit, unit_rows
from tests.helpers.held_file import held

KEYS = [f"query/{number:05d} é.jpg" for number in range(1500)]
ARRAYS = {"labels": (8, 4), "probs/parts8": (8, 2, 1)}
COLUMNS = {"key": (text(KEYS), ()), "image_sha256": (SHA256, ()), "visibility": (np.uint8, (8,))}


def content(row: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(row)
    return {name: random.integers(0, 256, shape).astype(np.uint8)
            for name, shape in {**ARRAYS, "visibility": (8,)}.items()}


def rows(count: int):
    for row in range(count):
        arrays = content(row)
        yield {"key": KEYS[row], "image_sha256": f"{row:064x}", "visibility": arrays["visibility"].tolist(),
               **{name: compress(arrays[name]) for name in ARRAYS}}


def write(path: Path, count: int = len(KEYS)) -> Path:
    write_cache(path, count=count, arrays=ARRAYS, columns=COLUMNS, rows=rows(count), maker='{"parser": "fake"}')
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_a_cache_of_another_format_is_refused_with_what_makes_it_anew(tmp_path):
    """Nothing said its format in format 1."""
    for number, (name, stage) in enumerate((("parts.h5", "parse"), ("dsap.h5", "warp"), ("parts.h5", "parse"))):
        path = write(tmp_path / f"set{number}" / name, 3)
        with h5py.File(path, "r+") as file:
            del file.attrs["format"]
            if number == 2:
                file.attrs["format"] = 3
        held, again = 3 if number == 2 else 1, rf"`dvc repro` or `python -m stages.{stage} set{number}`"
        for reads in (len, lambda cache: cache.maker, lambda cache: cache.read("labels", 0)):
            with pytest.raises(InputError, match=rf"{name}': has format {held}, .* reads format 2; .*{again}$"):
                reads(Cache(path))


def test_every_value_comes_back_through_plain_h5py(tmp_path):
    path = write(tmp_path / "parts.h5")
    cache = Cache(path)
    with h5py.File(path, "r", locking=False) as file:
        assert file["key"].asstr()[()].tolist() == KEYS
        assert file["labels"].chunks == (1, 8, 4) and file["labels"].compression == "gzip"
        for row in (0, 1023, 1024, 1499):
            for name, value in content(row).items():
                np.testing.assert_array_equal(file[name][row], value)
                np.testing.assert_array_equal(cache.read(name, row), value)
        assert file["image_sha256"][7] == f"{7:064x}".encode()
    assert cache.column("key").tolist() == KEYS and cache.column("image_sha256")[7] == f"{7:064x}"
    np.testing.assert_array_equal(cache.column("visibility")[1100], content(1100)["visibility"])
    assert cache.maker == {"parser": "fake"} and len(cache) == 1500
    assert cache.rows([KEYS[1400], KEYS[3]]).tolist() == [1400, 3]


def test_keys_may_stand_in_any_order(tmp_path):
    order = [3, 0, 2, 1]
    keys = [KEYS[row] for row in order]
    write_cache(tmp_path / "parts.h5", count=4, arrays=ARRAYS, columns=COLUMNS, maker="{}",
                rows=(list(rows(4))[row] for row in order))
    cache = Cache(tmp_path / "parts.h5")
    assert cache.column("key").tolist() == keys and cache.rows(KEYS[:4]).tolist() == [1, 3, 2, 0]


def test_fewer_rows_than_were_said_leave_no_file(tmp_path):
    with pytest.raises(RuntimeError, match="3 rows were given for 4"):
        write_cache(tmp_path / "parts.h5", count=4, arrays=ARRAYS, columns=COLUMNS, rows=rows(3), maker="{}")
    assert list(tmp_path.iterdir()) == []


def test_a_text_too_long_for_its_column_ends_with_a_whole_character(tmp_path):
    columns = {"key": (text(["a"]), ()), "status": (h5py.string_dtype("utf-8", 6), ())}
    write_cache(tmp_path / "parts.h5", count=1, arrays={}, columns=columns, rows=[{"key": "a", "status": "ab é日"}],
                maker="{}")
    assert Cache(tmp_path / "parts.h5").column("status").tolist() == ["ab é"]


def test_rows_that_hdf5_wrote_are_read_too(tmp_path):
    """Compressed by HDF5 itself, a row left as it is, other filters."""
    path, noise = tmp_path / "parts.h5", np.random.default_rng(0).integers(0, 256, (3, 8, 8)).astype(np.uint8)
    kinds = {"gzip": {"compression": "gzip"}, "shuffled": {"compression": "gzip", "shuffle": True}, "plain": {},
             "lzf": {"compression": "lzf"}}
    with h5py.File(path, "w") as file:
        for name, how in kinds.items():
            file.create_dataset(name, data=np.concatenate([noise, noise // 255]), chunks=(1, 8, 8), **how)
        twice = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        twice.set_chunk((1, 8, 8))
        twice.set_deflate(4)
        twice.set_deflate(4)
        h5py.h5d.create(file.id, b"twice", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((6, 8, 8)), twice)
        file["twice"][:] = np.concatenate([noise, noise // 255])
        file["gzip"].id.write_direct_chunk((1, 0, 0), noise[1].tobytes(), filter_mask=1)
    cache = Cache(path)
    for name in (*kinds, "twice"):
        for row in range(6):
            np.testing.assert_array_equal(cache.read(name, row), noise[row] if row < 3 else noise[row - 3] // 255)


def test_the_same_rows_give_the_same_bytes_at_another_time(tmp_path):
    first = md5(write(tmp_path / "parts.h5"))
    time.sleep(1.1)  # HDF5 keeps times in whole seconds
    assert md5(write(tmp_path / "parts.h5")) == first


def test_a_stored_chunk_is_what_was_compressed(tmp_path):
    cache = Cache(write(tmp_path / "parts.h5", 3))
    assert cache.chunk("labels", 2) == compress(content(2)["labels"])
    assert zlib.decompress(cache.chunk("labels", 2)) == content(2)["labels"].tobytes()


def test_a_pickled_and_a_forked_reader_read_their_own_handle(tmp_path):
    cache = Cache(write(tmp_path / "parts.h5", 60))
    cache.read("labels", 0)
    assert b"h5py" not in pickle.dumps(cache)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).read("labels", 5), content(5)["labels"])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for row, value in enumerate(pool.starmap(cache.read, [("labels", row) for row in range(60)])):
            np.testing.assert_array_equal(value, content(row)["labels"])
    np.testing.assert_array_equal(cache.read("labels", 9), content(9)["labels"])


def test_another_process_opens_the_file_anew(tmp_path, monkeypatch):
    cache, opened = Cache(write(tmp_path / "parts.h5", 3)), []
    cache.read("labels", 0)
    monkeypatch.setattr("pipeline.caches.cache.open_h5", lambda *a, **k: opened.append(a) or open_h5(*a, **k))
    cache.read("labels", 1)
    assert opened == []

    monkeypatch.setattr(os, "getpid", lambda: -1)
    np.testing.assert_array_equal(cache.read("labels", 2), content(2)["labels"])
    assert len(opened) == 1


def test_an_index_it_was_not_made_for(tmp_path):
    cache = Cache(write(tmp_path / "parts.h5", 3))
    with pytest.raises(InputError, match=r"parts\.h5.*'query/other\.jpg' \(1 of 2 .* 3 rows.*stage parse"):
        cache.rows([KEYS[0], "query/other.jpg"])


def test_an_array_its_parser_does_not_give(tmp_path):
    with pytest.raises(InputError, match=r"parts\.h5.*no 'uv'.*'fake'"):
        Cache(write(tmp_path / "parts.h5", 3)).read("uv", 0)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file(tmp_path, share):
    path = write(tmp_path / "dsap.h5", 200)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"dsap\.h5.*damaged or no cache.*stage warp"):
        Cache(path).rows(KEYS[:1])


def test_no_file_and_another_file(tmp_path):
    with pytest.raises(InputError, match=r"parts\.h5.*no such cache"):
        len(Cache(tmp_path / "parts.h5"))
    (tmp_path / "parts.h5").write_text("image,path\n")
    with pytest.raises(InputError, match=r"parts\.h5.*damaged or no cache"):
        len(Cache(tmp_path / "parts.h5"))
    with h5py.File(tmp_path / "parts.h5", "w") as file:
        file["something"] = 1
    with pytest.raises(InputError, match=r"parts\.h5.*damaged or no cache"):
        Cache(tmp_path / "parts.h5").rows([])


READS = "import sys; from pipeline.caches.cache import Cache; print(len(Cache(sys.argv[1])))"


@pytest.mark.parametrize("locks", ["locks", "none"])
def test_a_file_that_another_process_holds_open_is_not_called_damaged(tmp_path, locks):
    path = write(tmp_path / "parts.h5", 3)
    with held(path, "r", locks) as process:
        assert len(Cache(path)) == 3
        process.communicate()
    with held(path, "r+", locks) as process:
        with pytest.raises(HeldError, match=r"parts\.h5': another process has it open for writing.*again") as caught:
            len(Cache(path))
        assert "damaged" not in str(caught.value) and "\n" not in str(caught.value)
        for value in ("TRUE", "FALSE"):  # which overrules what h5py is told
            found = subprocess.run([sys.executable, "-c", READS, str(path)], capture_output=True, text=True,
                                   check=False, env=os.environ | {"HDF5_USE_FILE_LOCKING": value})
            assert "HeldError" in found.stderr and "damaged" not in found.stderr.splitlines()[-1]
        process.communicate()
    assert len(Cache(path)) == 3 and Cache(path).read("labels", 2).shape == (8, 4)


def test_a_flipped_bit_is_found_and_costs_one_row(tmp_path):
    path = write(tmp_path / "parts.h5", 5)
    data = bytearray(path.read_bytes())
    place = data.index(compress(content(3)["labels"]))
    data[place + 20] ^= 4
    path.write_bytes(data)
    cache = Cache(path)
    for read in (cache.read, cache.chunk):
        with pytest.raises(InputError, match=r"parts\.h5.*damaged"):
            read("labels", 3)
    np.testing.assert_array_equal(cache.read("labels", 4), content(4)["labels"])


def test_any_flipped_bit_gives_right_rows_or_a_sentence(tmp_path):
    path = write(tmp_path / "parts.h5", 5)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    found = 0
    for place in random.integers(len(whole), size=400):
        data = bytearray(whole)
        data[place] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
        cache = Cache(path)
        try:
            assert cache.column("key").tolist() == KEYS[:5] and len(cache) == 5
            for row in range(5):
                for name, value in content(row).items():
                    np.testing.assert_array_equal(cache.read(name, row), value)
        except InputError as error:
            found += 1
            assert "parts.h5" in str(error) and "damaged or no cache" in str(error)
        cache.close()
    assert 20 < found < 300  # the others are in `image_sha256` and in unused room


def test_any_flipped_bit_of_the_maker_s_heap_is_a_sentence_or_changes_nothing(tmp_path):
    """Every bit of its headers, in another process: HDF5 itself walks some of these heaps for ever."""
    path = write(tmp_path / "parts.h5", 5)
    script = f"""
from pathlib import Path; from pipeline.caches.cache import Cache; from pipeline.base.errors import InputError
path = Path({str(path)!r}); whole = path.read_bytes(); start = whole.index(b"GCOL")
size = int.from_bytes(whole[start + 24:start + 32], "little"); second = start + 32 + -(-size // 8) * 8
for place in [*range(start, start + 32), *range(second, second + 16)]:
    for bit in range(8):
        data = bytearray(whole); data[place] ^= 1 << bit; path.write_bytes(data)
        try:
            assert Cache(path).maker == {{"parser": "fake"}}
            print("same")
        except InputError as error:
            assert "parts.h5" in str(error)
            print("refused")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300,
                          cwd=Path(__file__).parents[2])
    results = done.stdout.split()
    assert len(results) == 48 * 8 and results.count("refused") > 200


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "parts.h5", 3)
    before = path.read_bytes()
    script = ("import resource\n"
              "from pathlib import Path; from tests.caches.test_cache import write\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))\n"
              f"write(Path({str(path)!r}))\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parents[2])
    assert "InputError" in done.stderr and "parts.h5': cannot be written" in done.stderr
    assert done.returncode == 1 and path.read_bytes() == before


def test_a_unit_comes_back_and_a_damaged_one_is_removed(tmp_path):
    path = tmp_path / "00000000.unit"
    save_unit(path, list(rows(4)))
    assert load_unit(path) == list(rows(4))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"00000000\.unit.*damaged"):
        load_unit(path)
    assert not path.exists()


def test_digests_tell_lists_apart():
    assert len({digest(parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["1:a"])}) == 5


def test_units_are_packed_by_the_rank_that_finds_them_all(tmp_path):
    packed: list[list[str]] = []
    asked: list[list[int]] = []

    def produce(numbers, save):
        asked.append(list(numbers))
        for number in numbers:
            save(number, [{"key": str(number), "a": b"1"}])

    def run(rank: int, identity: str = "x") -> bool:
        return run_units(tmp_path, identity=[identity], count=5, rank=rank, world=2, what="'out'", produce=produce,
                         pack=lambda fresh: packed.append([row["key"] for row in fresh]))

    assert not run(1) and not packed
    assert not run(0, identity="other images")  # nothing of theirs is taken up
    assert run(0) and packed == [["0", "1", "2", "3", "4"]]
    assert asked == [[1, 3], [0, 2, 4], [0, 2, 4]]
    assert not [path for path in tmp_path.rglob("*") if path.is_dir()]


def test_a_failed_pack_keeps_the_units(tmp_path):
    made: list[int] = []

    def produce(numbers, save):
        made.extend(numbers)
        for number in numbers:
            save(number, [{"key": str(number)}])

    def broken(fresh):
        next(fresh)
        raise InputError("no room")

    for pack in (broken, lambda fresh: list(fresh)):
        with pytest.raises(InputError) if pack is broken else pytest.MonkeyPatch.context():
            run_units(tmp_path, identity=["x"], count=3, rank=0, world=1, what="'out'", produce=produce, pack=pack)
    assert made == [0, 1, 2]


def test_a_second_writer_is_told_who_holds_the_lock(tmp_path):
    script = f"""
import sys; from pathlib import Path; from pipeline.caches.resumable import hold
with hold(Path({str(tmp_path)!r}) / "lock", "'parts.h5'"):
    print("held", flush=True); sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"'parts\.h5'.*process {holder.pid} on "), \
                hold(tmp_path / "lock", "'parts.h5'"):
            pass
        holder.kill()
        holder.wait()
    with hold(tmp_path / "lock", "'parts.h5'"):  # a killed holder leaves no lock behind
        pass


def test_missing_units_and_rows_in_order(tmp_path):
    for number in (2, 0):
        save_unit(tmp_path / f"{number:08d}.unit", [{"key": f"{number}.{place}"} for place in range(2)])
    assert missing_units(tmp_path, range(4)) == [1, 3]
    assert missing_units(tmp_path / "absent", range(2)) == [0, 1]
    save_unit(tmp_path / "00000001.unit", [{"key": "1.0"}])
    assert [row["key"] for row in unit_rows(tmp_path, 3)] == ["0.0", "0.1", "1.0", "2.0", "2.1"]
