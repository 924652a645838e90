"""Inspection: a sound cache passes, each kind of damage is found by the check that is meant for it and by no other."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.base.images import read_image
from pipeline.caches.cache import FORMAT, Cache
from pipeline.caches.warp import warp_images
from pipeline.datasets.index import read_index, write_index
from pipeline.inspection.contact_sheets import framed, native_legend, part_legend
from pipeline.inspection.soundness import inspect_cache
from pipeline.parsing.engine import Job, parse_images
from pipeline.parsing.oracle import Oracle
from stages.tools.inspect_cache import main, report
from tests.helpers.held_file import held
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

COUNT = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A parts.h5 of the oracle with one image without a person and one that failed; its dsap.h5."""
    root = tmp_path_factory.mktemp("caches")
    write_set(root, COUNT, nobody=2)
    index = read_index(root / "index.csv")
    (root / "raw" / index["path"][4]).write_bytes(b"")
    maker = {"parser": "oracle", "taxonomy": "densepose24", "height": HEIGHT, "width": WIDTH, "exact": True}
    job = Job(keys=index["image"].tolist(), paths=index["path"].tolist(), raw=root / "raw", maker=json.dumps(maker),
              taxonomy="densepose24", uv=True, height=HEIGHT, width=WIDTH, batch=4, device="cpu")
    failed = parse_images(job, Oracle(root / "raw/labels.h5", height=HEIGHT, width=WIDTH), root / "parts.h5",
                          scratch=root / "scratch")
    assert failed is not None and len(failed) == 1
    return root


@pytest.fixture
def root(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "set")
    return tmp_path / "set"


def keys(root: Path) -> list[str]:
    return read_index(root / "index.csv")["image"].tolist()


def broken(root: Path, index: list[str] | None = None) -> dict[str, int]:
    """The rules that are broken, and how often."""
    return {check.rule: check.wrong for check in inspect_cache(root / "parts.h5", index).checks if check.wrong}


def test_a_sound_cache_passes_and_says_what_it_is(root):
    inspection = inspect_cache(root / "parts.h5", keys(root))
    assert inspection.sound
    said = report(inspection)
    assert "4 parsed, 1 no person, 1 failed" in said and f"{keys(root)[4]}: failed: is empty" in said
    assert "maker: parser = oracle" in said and "FAILS" not in said and said.count("ok ") == len(inspection.checks)
    assert "labels: 6 x 32 x 16 bytes" in said


RULES = {
    "native": ("native labels are below 25 (densepose24)", (1, 3, 3), 25),
    "labels": ("labels follow from native", (1, 3, 3), None), "probs/parts8": ("sum to one", (1, 2, 1, 1), None),
    "entropy": ("entropy is that of the probabilities", (1, 1, 1), 200),
    "visibility": ("visibility is at least the highest mean", None, 0), "uv": ("u,v are 0 on background", None, 9)}


@pytest.mark.parametrize("name", RULES)
def test_a_changed_value_is_found(root, name):
    rule, place, value = RULES[name]
    with h5py.File(root / "parts.h5", "r+") as file:
        if name == "visibility":
            file[name][1] = value
        elif name == "uv":
            background = tuple(np.argwhere(file["native"][1] == 0)[0])
            file[name][(1, *background)] = value
        else:
            file[name][place] = (int(file[name][place]) + 7) % 256 if value is None else value
    found = broken(root)
    assert any(rule in broken_rule for broken_rule in found), found
    assert set(found.values()) == {1}
    # labels that do not follow and wrong sums break entropy or labels too; nothing else does
    allowed = {"native": {"labels follow"}, "probs/parts8": {"probabilities", "entropy", "visibility"}}.get(name, set())
    assert all(rule in other or any(other.startswith(word) for word in allowed) for other in found), found


def test_probabilities_between_the_steps_are_found(root):
    """Though they sum to one."""
    with h5py.File(root / "parts.h5", "r+") as file:
        cell = file["probs/parts8"][1, :, 2, 2]
        cell[[cell.argmax(), cell.argmin()]] += np.array([254, 2], np.uint8)  # 2 less, 2 more
        file["probs/parts8"][1, :, 2, 2] = cell
    assert broken(root) == {"probabilities and entropy are multiples of 5": 1}


def test_a_failed_row_left_unsaid_is_found(root):
    with h5py.File(root / "parts.h5", "r+") as file:
        file["status"][4] = b"parsed"
        file["status"][1] = b"failed: not really"
        file["status"][0] = b"no person"
        file["status"][3] = b"odd"
    found = broken(root)
    assert found["no failed row is left unsaid"] == 4 and found["status is parsed, no person or failed: why"] == 1


def test_keys_are_compared_with_the_index(root):
    names = keys(root)
    rule = "keys are the index's, in its order"
    assert broken(root, [*names, "query/new.jpg"]) == {rule: 1}
    assert broken(root, names[1:]) == {rule: 1}
    assert broken(root, [names[1], names[0], *names[2:]]) == {rule: 1}
    with h5py.File(root / "parts.h5", "r+") as file:
        file["key"][1] = names[0].encode()
    assert broken(root)["every key stands once"] == 1


def test_missing_and_misshapen_arrays_are_found(root):
    with h5py.File(root / "parts.h5", "r+") as file:
        del file["entropy"]
        labels = file["labels"][:, :-1]
        del file["labels"]
        file["labels"] = labels
    rule = "every array is there, is bytes and has its shape, and nothing else is"
    assert broken(root) == {rule: 2}
    with h5py.File(root / "parts.h5", "r+") as file:
        file["probs/parts9"] = np.zeros((COUNT, 2), np.uint8)
    assert broken(root) == {rule: 3}


def test_a_flipped_bit_is_found(root):
    path = root / "parts.h5"
    data = bytearray(path.read_bytes())
    data[data.index(Cache(path).chunk("labels", 3)) + 9] ^= 1
    path.write_bytes(data)
    assert broken(root) == {"every row can be read": 1}


@pytest.mark.parametrize(("column", "count"), [
    ("", 250), ("image_sha256", 80), ("key", 40), ("status", 40), ("visibility", 40),
    pytest.param("", 3000, marks=pytest.mark.slow), pytest.param("image_sha256", 10000, marks=pytest.mark.slow)])
def test_every_flipped_bit_that_changes_what_is_read_is_found(root, column, count):
    """Bits that mean nothing may pass, and some of the maker's text, which has no checksum."""
    script = Path(__file__).parents[1] / "helpers" / "flipped_cache.py"
    done = subprocess.run([sys.executable, str(script), str(root / "parts.h5"), "1", str(count), column],
                          capture_output=True, text=True, cwd=script.parents[2], check=False,
                          env=os.environ | {"PYTHONPATH": str(script.parents[2])})
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    passed = [line for line in lines if line[4] == "sound" and line[2] != "right"]
    assert lines and not passed
    assert sum(line[4] != "sound" for line in lines) > len(lines) / 3  # the others are room that nothing fills
    false = [line for line in lines if line[4] != "sound" and line[2:4] == ["right", "same"]]
    assert not false
    if column:
        assert all(line[2] != "right" or line[4] == "sound" for line in lines)
        assert sum(line[2] == "refused" for line in lines) > len(lines) * 0.9


def test_the_images_hashes_are_read_and_compared(root):
    with h5py.File(root / "parts.h5", "r+") as file:
        file["image_sha256"][0] = b"f" * 63 + b"g"
        file["image_sha256"][1] = b""
        file["image_sha256"][3] = b"A" * 64
    assert broken(root) == {"image_sha256 is a SHA-256, of every image that was read": 3}  # the 4th failed: it may lack


def test_images_that_changed_are_found(root):
    index = read_index(root / "index.csv")
    files = {key: root / "raw" / path for key, path in zip(index["image"], index["path"], strict=True)}
    rule = "image_sha256 is that of the image's file"

    def changed() -> dict[str, int]:
        return {check.rule: check.wrong for check in inspect_cache(root / "parts.h5", images=files).checks
                if check.wrong}

    assert not changed() and rule in {check.rule for check in inspect_cache(root / "parts.h5", images=files).checks}
    one, two = files[keys(root)[0]], files[keys(root)[1]]
    data = one.read_bytes(), two.read_bytes()
    one.write_bytes(data[1])
    two.write_bytes(data[0])
    assert changed() == {rule: 2}
    one.unlink()
    assert changed() == {rule: 2}


def remade(root: Path, **maker) -> None:
    with h5py.File(root / "parts.h5", "r+") as file:
        file.attrs["maker"] = json.dumps(json.loads(file.attrs["maker"]) | maker)


def test_parses_made_elsewhere_are_found_that_were_not_compared_with_their_images(root):
    """Such as an older version made: it gave pictures the parses of others and cut or blanked what did not fit."""
    rule = "parses made elsewhere were compared with their images"
    for maker, wrong in (({}, {}), ({"parser": "precomputed"}, {rule: 1}), ({"reading": 1}, {rule: 1}),
                         ({"reading": 2}, {})):
        remade(root, **maker)
        assert broken(root) == wrong
        made = json.dumps({"parts": Cache(root / "parts.h5").maker})
        index = read_index(root / "index.csv")
        warp_images(Cache(root / "parts.h5"), index["image"].tolist(), index["path"].tolist(), root / "raw",
                    root / "dsap.h5", maker=made, height=HEIGHT, width=WIDTH, texels=8, scratch=root / "scratch")
        found = {check.rule: check.wrong for check in inspect_cache(root / "dsap.h5").checks if check.wrong}
        assert found == wrong


def test_one_parse_for_two_images_is_found(root):
    remade(root, parser="precomputed", reading=2)
    names = ("native", "labels", "uv", "probs/parts8", "probs/parts4", "entropy", "visibility")
    with h5py.File(root / "parts.h5", "r+") as file:
        for name in names:
            file[name][3] = file[name][0]
            file[name][5] = file[name][0]
        file["image_sha256"][5] = file["image_sha256"][0]  # a copy of that image may have its parse
    inspection = inspect_cache(root / "parts.h5")
    found = {check.rule: (check.wrong, check.examples) for check in inspection.checks if check.wrong}
    assert found == {"every image has its own parse": (1, [f"{keys(root)[3]}: that of {keys(root)[0]}"])}
    remade(root, parser="lraspp")  # a network may see two pictures alike
    assert not broken(root)


def test_a_maker_that_is_not_as_it_was_written_is_found(root):
    for changes in ({"source_sha256": "0" * 63}, {"source_sha256": "0" * 63 + "g"}, {"parts": {"parts_sha256": ""}}):
        remade(root, **changes)
        assert broken(root) == {"the maker is as it was written": 1}
        remade(root, source_sha256="0" * 64, parts={})
    with h5py.File(root / "parts.h5", "r+") as file:
        file.attrs["maker"] = file.attrs["maker"].replace(", ", ",  ", 1)
    assert broken(root) == {"the maker is as it was written": 1}


def test_what_is_no_cache_is_one_sentence(root):
    (root / "text.h5").write_text("no cache")
    (root / "cut.h5").write_bytes((root / "parts.h5").read_bytes()[:3000])
    with h5py.File(root / "bare.h5", "w") as file:
        file.attrs["maker"], file.attrs["format"] = json.dumps({"parser": "x"}), FORMAT
        file["key"], file["labels"] = np.array([b"a"]), np.zeros((1, 4, 4), np.uint8)
    for name, words in (("text", "damaged or no cache"), ("cut", "damaged or no cache"), ("none", "no such cache"),
                        ("bare", "does not say how it was made")):
        with pytest.raises(InputError, match=rf"{name}\.h5.*{words}") as caught:
            inspect_cache(root / f"{name}.h5")
        assert "\n" not in str(caught.value)


def test_a_dsap_file_is_inspected_too(root):
    index = read_index(root / "index.csv").drop(index=4)
    warp_images(Cache(root / "parts.h5"), index["image"].tolist(), index["path"].tolist(), root / "raw",
                root / "dsap.h5", maker='{"texels": 8}', height=HEIGHT, width=WIDTH, texels=8, scratch=root / "scratch")
    inspection = inspect_cache(root / "dsap.h5", index["image"].tolist())
    assert inspection.sound and len(inspection.checks) == 8
    with h5py.File(root / "dsap.h5", "r+") as file:
        place = tuple(np.argwhere(file["valid"][1] == 0)[0])
        file["dsap"][(1, *place, 2)] = 5
        file["valid"][3, 0, 0, 0] = 2
    found = {check.rule: check.wrong for check in inspect_cache(root / "dsap.h5").checks if check.wrong}
    assert found == {"valid is 0 or 1": 1, "texels that are not valid are 0": 1}


@pytest.fixture
def command(root, monkeypatch, capsys):
    """`python -m stages.tools.inspect_cache` in the folder: exit status, stdout, stderr."""
    monkeypatch.chdir(root)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inspect", *arguments])
        try:
            main()
            status = 0
        except SystemExit as done:
            status = int(done.code or 0)
        return status, *capsys.readouterr()

    return call


def test_the_command_exits_with_0_1_or_2(root, command):
    status, said, _ = command("parts.h5", "--index", "index.csv")
    assert status == 0 and "1 failed" in said
    write_index(read_index(root / "index.csv").iloc[1:], root / "fewer.csv")
    status, said, _ = command("parts.h5", "--index", "fewer.csv")
    assert status == 1 and "FAILS keys are the index's, in its order: 1" in said
    assert command("parts.h5", "--index", "index.csv", "--images", "raw")[0] == 0
    (root / "raw" / read_index(root / "index.csv")["path"][0]).write_bytes(b"another")
    status, said, _ = command("parts.h5", "--index", "index.csv", "--images", "raw")
    assert status == 1 and "FAILS image_sha256 is that of the image's file: 1" in said
    assert command("parts.h5", "--images", "raw")[0] == 2
    with held(root / "parts.h5", "r+") as process:
        status, _, error = command("parts.h5")
        assert status == 2 and "another process has it open for writing" in error and "damaged" not in error
        process.communicate()
    status, _, error = command("none.h5")
    assert status == 2 and error.startswith("error: 'none.h5': no such cache")


def exported(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(folder.iterdir())}


def holds(picture: np.ndarray, part: np.ndarray) -> bool:
    """Whether an image stands somewhere on a picture, pixel by pixel."""
    match = cv2.matchTemplate(picture, part, cv2.TM_SQDIFF)
    y, x = np.unravel_index(match.argmin(), match.shape)
    return bool((picture[y:y + part.shape[0], x:x + part.shape[1]] == part).all())


def test_rows_are_drawn_beside_their_images(root, command):
    names = keys(root)
    arguments = ("parts.h5", "--index", "index.csv", "--images", "raw", "--export", "maps")
    assert command(*arguments, "--keys", names[1], names[3])[0] == 0
    drawn = exported(root / "maps")
    assert list(drawn) == [f"{row:06d}-{names[row].replace('/', '+')}.png" for row in (1, 3)]
    pictures = [framed(read_image(root / "raw" / read_index(root / "index.csv")["path"][row])) for row in (1, 3)]
    for number, picture in enumerate(drawn.values()):
        assert [holds(picture, image) for image in pictures] == [number == 0, number == 1]
        assert all((picture[:40] == colour).all(-1).any() for colour in part_legend().values())
        native = Cache(root / "parts.h5").read("native", (1, 3)[number])
        for colour in native_legend(native, "densepose24").values():
            assert (picture == colour).all(-1).sum() > 18 * 18  # in the legend, and on the map
    assert command("parts.h5", "--export", "alone", "--count", "3")[0] == 0
    alone = exported(root / "alone")
    assert [int(name[:6]) for name in alone] == [1, 3, 5] and not holds(alone[next(iter(alone))], pictures[0])


def test_what_cannot_be_exported_is_one_sentence(root, command):
    names = keys(root)
    status, said, error = command("parts.h5", "--export", "maps", "--keys", names[0], "nobody")
    assert status == 2 and not said and "holds no image 'nobody'" in error and error.count("\n") == 1
    arguments = ("parts.h5", "--index", "index.csv", "--export", "maps")
    status, _, error = command(*arguments, "--images", "nowhere")
    assert status == 2 and error.startswith("error: 'nowhere': no such folder of images")
    (root / "empty").mkdir()
    status, _, error = command(*arguments, "--images", "empty")
    assert status == 2 and f"'empty': holds none of the {COUNT} images of 'index.csv'" in error
    paths = read_index(root / "index.csv")["path"]
    (root / "raw" / paths[1]).write_bytes((root / "raw" / paths[0]).read_bytes())
    status, _, error = command(*arguments, "--images", "raw", "--keys", names[0], names[1])
    assert status == 2 and error.startswith(f"error: 'raw/{paths[1]}': is not the image that 'parts.h5' was made from")
    (root / "raw" / paths[1]).unlink()
    status, _, error = command(*arguments, "--images", "raw", "--keys", names[0], names[1])
    assert status == 2 and f"'raw/{paths[1]}': cannot be read (No such file" in error and error.count("\n") == 1
    write_index(read_index(root / "index.csv").iloc[2:], root / "index.csv")
    status, _, error = command(*arguments, "--images", "raw", "--keys", names[0])
    assert status == 2 and f"holds '{names[0]}', and the index has no such image" in error
    assert not (root / "maps").exists()  # nothing of any of these
    assert command("parts.h5", "--keys", names[0])[0] == 2
