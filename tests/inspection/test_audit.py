"""The audit's metrics against loops and against rendered people whose labels are right, and made wrong on purpose."""

import hashlib
import json
import math
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from scipy.stats import ks_2samp

from pipeline.base.body_parts import DENSEPOSE24_FLIP, DENSEPOSE24_TO_PARTS8, PARTS8, parts8_from_native
from pipeline.base.errors import InputError
from pipeline.caches.cache import Cache, compress, write_cache
from pipeline.caches.parts_layout import parts_arrays, parts_columns
from pipeline.datasets.joints import COCO18, read_joints
from pipeline.inspection.audit import (
    confusion,
    has_sides,
    is_upright,
    joint_agreement,
    metrics,
    oddness,
    outliers,
    part_overlap,
    random_keys,
    survey,
)
from pipeline.inspection.contact_sheets import part_legend
from stages.tools.audit_cache import cache_path, main
from tests.helpers.rendered_people import people

COUNT = 12
PATHS = [f"query/{number:04d}_c1s1_000000_00.jpg" for number in range(COUNT)]


def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(people(COUNT)[number].image, cv2.COLOR_RGB2BGR))[1].tobytes()


HASHES = [hashlib.sha256(jpeg(number)).hexdigest() for number in range(COUNT)]


def write(path: Path, natives: list[np.ndarray], taxonomy="densepose24", failed: tuple[int, ...] = ()) -> Cache:
    """A parts.h5 with these native labels; probabilities are left empty, the audit reads labels."""
    height, width = natives[0].shape
    arrays = parts_arrays(height, width, uv=False)
    empty = {name: compress(np.zeros(shape, np.uint8)) for name, shape in arrays.items()}
    rows = []
    for number, native in enumerate(natives):
        labels = parts8_from_native(native, taxonomy)
        status = "failed: no" if number in failed else "parsed" if labels.any() else "no person"
        rows.append({"key": PATHS[number], "image_sha256": HASHES[number], "status": status,
                     "visibility": np.zeros(8, np.uint8), **empty, "native": compress(native),
                     "labels": compress(labels)})
    maker = {"parser": "test", "taxonomy": taxonomy, "height": height, "width": width, "exact": taxonomy != "lip20"}
    write_cache(path, count=len(rows), arrays=arrays, columns=parts_columns(PATHS[:len(rows)]), rows=rows,
                maker=json.dumps(maker))
    return Cache(path)


@pytest.fixture(scope="module")
def truth() -> list[np.ndarray]:
    return [person.index for person in people(COUNT)]


def joints_of(number: int) -> np.ndarray:
    joints = people(COUNT)[number].joints.astype(np.float64)
    joints[:, :2] /= [64, 128]
    return joints


def test_rendered_people_are_upright_and_have_their_sides(truth):
    judged = []
    for native in truth:
        labels = DENSEPOSE24_TO_PARTS8[native]
        assert is_upright(labels) == 1 and is_upright(labels[::-1]) == 0
        sides = has_sides(native)
        judged.append(not math.isnan(sides))
        if judged[-1]:
            assert sides == 1
            assert has_sides(native[:, ::-1]) == 0  # mirrored with the labels left as they are
            assert has_sides(DENSEPOSE24_FLIP[native[:, ::-1]]) == 1
            assert has_sides(DENSEPOSE24_FLIP[native]) == 0
    assert 3 <= sum(judged) <= COUNT - 1  # some are seen from the side


def test_what_cannot_be_seen_is_not_judged():
    assert math.isnan(is_upright(np.zeros((32, 16), np.uint8))) and math.isnan(has_sides(np.zeros((32, 16), np.uint8)))
    head = np.zeros((32, 16), np.uint8)
    head[:8] = PARTS8.index("head")
    assert math.isnan(is_upright(head))
    head[10:20] = PARTS8.index("upper-leg")  # legs stand in for feet
    assert is_upright(head) == 1
    front = np.full((32, 16), 2, np.uint8)
    assert math.isnan(has_sides(front))  # no arms


def test_overlap_is_intersection_over_union():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 7, (2, 9, 5))
    counts = confusion(a.astype(np.uint8), b.astype(np.uint8))
    for one, other in np.ndindex(8, 8):
        assert counts[one, other] == ((a == one) & (b == other)).sum()
    overlap = part_overlap(counts)
    for part in range(7):
        assert overlap[part] == ((a == part) & (b == part)).sum() / ((a == part) | (b == part)).sum()
    assert math.isnan(overlap[7])


def test_joints_are_looked_up_within_reach():
    labels = np.zeros((50, 25), np.uint8)
    labels[10:12, 10:12] = PARTS8.index("head")
    labels[20, 5], labels[30, 5] = PARTS8.index("torso"), PARTS8.index("lower-arm")
    joints = np.zeros((18, 3))
    joints[:, 2] = 1
    joints[:, :2] = [24 / 25, 49 / 50]  # nothing is there
    joints[COCO18.index("nose")] = [10.5 / 25, 10.5 / 50, 1]
    joints[COCO18.index("left eye")] = [12.4 / 25, 10.5 / 50, 1]  # 0.9 pixels off the head's middle column
    joints[COCO18.index("right eye")] = [13.2 / 25, 10.5 / 50, 1]  # 1.7
    joints[COCO18.index("left ear")] = [10.5 / 25, 10.5 / 50, 0]  # hidden
    joints[COCO18.index("right ear")] = [-0.1, 0.5, 1]  # out of the frame
    joints[COCO18.index("left elbow")] = joints[COCO18.index("left shoulder")] = [5.5 / 25, 20.5 / 50, 1]
    joints[COCO18.index("left wrist")] = [5.5 / 25, 30.5 / 50, 1]
    result = dict(zip(COCO18, joint_agreement(labels, joints, exact=True), strict=True))
    assert result["nose"] == result["left eye"] == result["left shoulder"] == result["left wrist"] == 1
    assert result["right eye"] == result["left elbow"] == result["left knee"] == 0
    assert math.isnan(result["left ear"]) and math.isnan(result["right ear"])
    assert joint_agreement(labels, joints, exact=False)[COCO18.index("left elbow")] == 1  # a sleeve


def test_rendered_joints_lie_on_their_parts(truth):
    found = np.array([joint_agreement(DENSEPOSE24_TO_PARTS8[native], joints_of(number), exact=True)
                      for number, native in enumerate(truth)])
    shifted = np.array([joint_agreement(DENSEPOSE24_TO_PARTS8[np.roll(native, 64, 0)], joints_of(number), exact=True)
                        for number, native in enumerate(truth)])
    assert np.nanmean(found) > 0.85 and np.nanmean(found[:, [0, 1, 10, 13]]) > 0.95  # nose, neck, ankles
    assert np.nanmean(shifted) < 0.4


def test_oddness_is_a_product_of_tails():
    random = np.random.default_rng(0)
    known, areas = random.dirichlet(np.ones(8), 40), random.dirichlet(np.ones(8), 5)
    known[3] = np.nan
    whole = np.delete(known, 3, 0)
    for row, value in enumerate(oddness(areas, known)):
        expected = 0.0
        for part in range(1, 8):
            least = min((whole[:, part] <= areas[row, part]).sum(), (whole[:, part] >= areas[row, part]).sum())
            expected -= math.log(min(1, 2 * (least + 1) / 40))
        assert value == pytest.approx(expected)
    assert math.isnan(oddness(np.full((1, 8), np.nan), known)[0])


@pytest.fixture
def caches(truth, tmp_path) -> Path:
    """Right labels; the same with faults: 1 upside down, 2 nobody, 3 failed, 5 and 6 with sides exchanged."""
    write(tmp_path / "right.h5", truth)
    faulty = [native.copy() for native in truth]
    faulty[1] = faulty[1][::-1]
    faulty[2][:] = 0
    for number in sided(truth)[:2]:
        faulty[number] = DENSEPOSE24_FLIP[faulty[number]]
    write(tmp_path / "faulty.h5", faulty, failed=(3,))
    return tmp_path


def sided(truth: list[np.ndarray]) -> list[int]:
    """People whose sides can be judged and who have no other fault."""
    return [number for number, native in enumerate(truth) if not math.isnan(has_sides(native)) and number > 3]


def test_figures_tell_faults_from_truth(caches, truth):
    right, faulty = Cache(caches / "right.h5"), Cache(caches / "faulty.h5")
    joints = {PATHS[number]: joints_of(number) for number in range(COUNT)}
    good = metrics(survey(right, joints=joints), None)
    assert good["no_person"] == good["failed"] == 0 and good["head_above_feet"] == {"judged": COUNT, "plausible": 1.0}
    assert good["left_right"]["plausible"] == 1 and good["joints"]["all"]["plausible"] > 0.85
    seen = survey(faulty, other=right, joints=joints)
    bad = metrics(seen, survey(right))
    assert (bad["no_person"], bad["failed"]) == (round(1 / COUNT, 4), round(1 / COUNT, 4))
    assert bad["head_above_feet"] == {"judged": COUNT - 2, "plausible": round(1 - 1 / (COUNT - 2), 4)}
    wrong = bad["left_right"]
    assert round(wrong["plausible"] * wrong["judged"]) in (wrong["judged"] - 2, wrong["judged"] - 3)
    assert bad["joints"]["all"]["plausible"] < good["joints"]["all"]["plausible"]
    kept = [number for number in range(COUNT) if number != 3]
    areas = np.array([np.bincount(DENSEPOSE24_TO_PARTS8[truth[number]].ravel(), minlength=8) / truth[0].size
                      for number in range(COUNT)])
    head = good["areas"]["head"]
    assert head["mean"] == pytest.approx(areas[:, 1].mean(), abs=1e-4) and head["seen"] == 1
    assert head["p50"] == pytest.approx(np.median(areas[:, 1]), abs=1e-4)
    changed = areas[kept].copy()
    changed[kept.index(2)] = 0
    assert bad["reference"]["torso"]["ks"] == pytest.approx(ks_2samp(changed[:, 2], areas[:, 2]).statistic, abs=1e-4)
    same = np.mean([(DENSEPOSE24_TO_PARTS8[truth[n]] == faulty.read("labels", n)).mean() for n in kept])
    assert bad["other"]["same_pixels"] == pytest.approx(same, abs=1e-4) and bad["other"]["images"] == COUNT - 1
    assert seen.overlap[0] == 1 and seen.overlap[2] == 0 and math.isnan(seen.overlap[3])


def test_outliers_are_the_faulty_ones(caches, truth):
    seen = survey(Cache(caches / "faulty.h5"), other=Cache(caches / "right.h5"))
    found = dict(outliers(seen, survey(Cache(caches / "right.h5")), most=5))
    assert [key for key, _ in found["without a person (1)"]] == [PATHS[2]]
    assert not any(title.startswith("without") and "person" not in title for title in found)  # who is nobody: once
    assert [key for key, _ in found["with head, torso and feet out of order (1)"]] == [PATHS[1]]
    sides = next(part for title, part in found.items() if title.startswith("with left and right"))
    assert {PATHS[number] for number in sided(truth)[:2]} <= {key for key, _ in sides}
    assert len(found["unusual part areas"]) == 5
    assert {key for key, _ in found["least agreement with the other parser"][:2]} == {PATHS[1], PATHS[2]}
    assert not any("joints" in title for title in found)
    assert all(PATHS[2] != key for key, _ in found["unusual part areas"])
    assert all(PATHS[3] != key for part in found.values() for key, _ in part)  # failed: nothing to look at


def test_those_without_a_part_are_shown_and_random_ones_are_of_all_that_were_parsed(truth, tmp_path):
    changed = [native.copy() for native in truth]
    for number in (4, 7, 9):
        changed[number][DENSEPOSE24_TO_PARTS8[changed[number]] == PARTS8.index("head")] = 0
    seen = survey(write(tmp_path / "heads.h5", changed, failed=(3,)))
    assert dict(outliers(seen, None, most=2))["without a head (3)"] == [(PATHS[4], ""), (PATHS[9], "")]
    drawn = random_keys(seen, 5)
    assert len(set(drawn)) == 5 and drawn == sorted(drawn) == random_keys(seen, 5) and set(drawn) <= set(seen.keys)
    assert random_keys(seen, 99) == [path for path in PATHS if path != PATHS[3]]


def test_a_sample_is_spread_evenly(caches):
    seen = survey(Cache(caches / "right.h5"), sample=3)
    assert seen.keys == [PATHS[2], PATHS[6], PATHS[10]]
    assert survey(Cache(caches / "right.h5"), sample=COUNT + 5).keys == PATHS


def test_sides_of_other_label_sets_are_not_judged(tmp_path):
    cache = write(tmp_path / "lip.h5", [person.lip for person in people(COUNT)], taxonomy="lip20")
    told = metrics(survey(cache), None)
    assert told["left_right"] == {"judged": 0, "plausible": None} and told["head_above_feet"]["plausible"] == 1


def test_another_size_is_compared_pixel_by_pixel(truth, tmp_path):
    half = write(tmp_path / "half.h5", [native[::2, ::2] for native in truth])
    big = write(tmp_path / "big.h5", [native[::2, ::2].repeat(2, 0).repeat(2, 1) for native in truth])
    assert metrics(survey(half, other=big), None)["other"]["same_pixels"] == 1
    assert metrics(survey(big, other=half), None)["other"]["mean_iou"] == 1


def write_joints(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["path"] = PATHS
        file["joints"] = np.array([person.joints for person in people(COUNT)], np.float32)
        file["lip"] = np.zeros((COUNT, 128, 64), np.uint8)


def test_joints_come_from_a_rendered_sets_file(tmp_path):
    write_joints(tmp_path / "labels.h5")
    found = read_joints(tmp_path / "labels.h5").shares({"a": PATHS[4], "b": "nobody.jpg"})
    assert found.keys() == {"a"}
    np.testing.assert_allclose(found["a"], joints_of(4), atol=1e-5)
    with h5py.File(tmp_path / "few.h5", "w") as file:
        file["path"], file["joints"], file["lip"] = ["a"], np.zeros((1, 17, 3)), np.zeros((1, 4, 4))
    with pytest.raises(InputError, match=r"few\.h5.*joints are \(1, 17, 3\), and COCO's 18 are read"):
        read_joints(tmp_path / "few.h5").shares({})


def test_a_cache_of_other_images_is_refused(caches, truth, tmp_path):
    other = write(tmp_path / "other.h5", truth)
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file["key"][:] = [f"train/{number:04d}_c1s1_000000_00.jpg".encode() for number in range(COUNT)]
    with pytest.raises(InputError, match=r"other\.h5.*shares no image with .*right\.h5"):
        survey(Cache(caches / "right.h5"), other=other)
    assert cache_path("market") == Path("data/cache/market/parts.h5") and cache_path("x/y.h5") == Path("x/y.h5")


def test_what_another_parser_failed_at_is_no_background(truth, tmp_path):
    """Its rows hold zeros, which would agree wherever nobody is."""
    whole = write(tmp_path / "whole.h5", truth)
    natives = [native * 0 if number in (0, 3) else native for number, native in enumerate(truth)]
    seen = survey(whole, other=write(tmp_path / "some.h5", natives, failed=(0, 3)))
    assert np.flatnonzero(np.isnan(seen.overlap)).tolist() == [0, 3]
    told = metrics(seen, None)["other"]
    assert told["images"] == COUNT - 2 and told["same_pixels"] == told["mean_iou"] == 1
    none = write(tmp_path / "none.h5", truth, failed=tuple(range(COUNT)))
    with pytest.raises(InputError, match=r"none\.h5': has parsed none of the images of '.*whole\.h5'"):
        survey(whole, other=none)


def test_the_command_writes_figures_and_a_contact_sheet(caches, monkeypatch, capsys):
    monkeypatch.chdir(caches)
    write_csv(Path("index.csv"))
    write_pictures(Path("raw"))
    write_joints(Path("labels.h5"))
    arguments = ["audit", "faulty.h5", "--reference", "right.h5", "--other", "right.h5", "--index", "index.csv",
                 "--images", "raw", "--joints", "labels.h5", "--out", "seen", "--most", "4"]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    said, warned = capsys.readouterr()
    assert f"{COUNT} images: 8.3% no person, 8.3% failed" in said and "agreement with right.h5" in said
    assert f"of the {COUNT - 2} of {COUNT} that can be judged" in said and "height / width 1.5 to 2.5" in said
    assert said.splitlines()[-2].startswith("verdict: ") and not warned
    told = json.loads(Path("seen/audit.json").read_text())
    assert told["maker"]["parser"] == "test" and told["outliers"]["without a person (1)"] == [PATHS[2]]
    assert told["by_proportions"]["1.5 to 2.5"]["images"] == COUNT and "by_split" not in told
    assert told["faults"]["no_person"] == {"judged": COUNT - 1, "share": round(1 / (COUNT - 1), 4)}
    assert told["people"] == "whole" and len(told["random"]) == COUNT - 1
    sheets = [Path("seen/outliers.png").read_bytes(), Path("seen/random.png").read_bytes()]
    for data in sheets:
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
        assert all((picture[:60] == colour).all(-1).sum() >= 18 * 18 for colour in part_legend().values())
    main()
    assert [Path("seen/outliers.png").read_bytes(), Path("seen/random.png").read_bytes()] == sheets
    monkeypatch.setattr(sys, "argv", ["audit", "none.h5"])
    with pytest.raises(SystemExit, match="2"):
        main()
    monkeypatch.setattr(sys, "argv", ["audit", "right.h5"])
    main()
    assert Path("scratch/audit/right/audit.json").exists()


def write_csv(path: Path) -> None:
    lines = ["image,path,pid,camid,split"] + [f"{name},{name},{number},1,query" for number, name in enumerate(PATHS)]
    path.write_text("\n".join(lines) + "\n")


def write_pictures(folder: Path) -> None:
    (folder / "query").mkdir(parents=True)
    for number, path in enumerate(PATHS):
        (folder / path).write_bytes(jpeg(number))


@pytest.fixture
def audited(caches, monkeypatch, capsys):
    """`audit_cache right.h5` in a folder with an index: exit status, stdout, stderr."""
    monkeypatch.chdir(caches)
    write_csv(Path("index.csv"))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["audit", "right.h5", "--index", "index.csv", *arguments])
        try:
            main()
            status = 0
        except SystemExit as done:
            status = int(done.code or 0)
        return status, *capsys.readouterr()

    return call


def test_images_that_are_not_there_are_one_sentence(audited):
    status, said, error = audited("--images", "nowhere")
    assert status == 2 and not said and error.count("\n") == 1
    assert error.startswith("error: 'nowhere': no such folder of images")
    Path("empty/query").mkdir(parents=True)
    status, said, error = audited("--images", "empty")
    assert status == 2 and not said and error.count("\n") == 1
    assert f"'empty': holds none of the {COUNT} images of 'index.csv', such as '{PATHS[0]}'" in error
    write_pictures(Path("raw"))
    Path("index.csv").write_text(Path("index.csv").read_text().replace("query/", "query/x"))
    status, said, error = audited("--images", "raw")
    assert status == 2 and "'index.csv': shares no image with 'right.h5'" in error
    assert not Path("scratch/audit/right/audit.json").exists()


def test_images_that_are_not_the_caches_are_not_shown_beside_its_parses(audited):
    write_pictures(Path("raw"))
    Path("raw", PATHS[1]).write_bytes(jpeg(2))
    status, _, warned = audited("--images", "raw")
    assert status == 0 and f"'raw/{PATHS[1]}': is not the image that 'right.h5' was made from" in warned
    assert f"1 of {COUNT} parses are shown without their image" in warned
    for number, path in enumerate(PATHS):
        Path("raw", path).write_bytes(jpeg((number + 1) % COUNT))
    status, _, error = audited("--images", "raw")
    assert status == 2 and f"'raw/{PATHS[0]}': is not the image that 'right.h5' was made from" in error


def test_an_index_and_joints_of_another_data_set_are_one_sentence(audited):
    write_joints(Path("labels.h5"))
    with h5py.File("labels.h5", "r+") as file:
        file["path"][:] = [f"other/{number}.jpg".encode() for number in range(COUNT)]
    status, said, error = audited("--joints", "labels.h5")
    assert status == 2 and not said and error.count("\n") == 1
    assert f"'labels.h5': has joints of no image of 'right.h5' (has 'other/0.jpg', not '{PATHS[0]}')" in error
    Path("index.csv").write_text(Path("index.csv").read_text().replace("query/", "query/x"))
    status, said, error = audited()
    assert status == 2 and not said and error.count("\n") == 1 and "'index.csv': shares no image with 'right" in error
    assert not Path("scratch/audit/right/audit.json").exists()


def test_splits_are_told_apart(audited):
    text = Path("index.csv").read_text()
    Path("index.csv").write_text(text.replace(",1,query", ",1,gallery", 3))
    status, said, _ = audited()
    assert status == 0 and "split gallery" in said and "height / width" not in said
    told = json.loads(Path("scratch/audit/right/audit.json").read_text())
    assert {name: group["images"] for name, group in told["by_split"].items()} == {"gallery": 3, "query": COUNT - 3}
