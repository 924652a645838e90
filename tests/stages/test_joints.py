"""The stage joints: KPR's and COCO's key points and ViTPose over a small set, what SORN's +P reads, bad files."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.datasets.index import read_index, write_index
from pipeline.datasets.joints import COCO18, read_joints, stripes_with_joints
from pipeline.parsing.joints_file import FROM_COCO17, coco18
from pipeline.parsing.keypoint_json import COCO17
from stages import joints as stage
from tests.helpers.bare_params import bare_experiment
from tests.helpers.tiny_set import HEIGHT, WIDTH, write_set

COUNT = 6


@pytest.fixture
def root(tmp_path, monkeypatch):
    write_index(write_set(tmp_path, COUNT), tmp_path / "data/index/tiny.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names() -> list[str]:
    return read_index("data/index/tiny.csv")["path"].tolist()


def made(estimator: str, source: str = "points", **more):
    entry = {"dataset": "tiny", "index": "data/index/tiny.csv", "raw": "raw", "source": source}
    stage.run(bare_experiment(params={"joints": {"tiny": {"estimator": estimator, **more}}},
                              plan={"joints": {"tiny": entry}}), "tiny")
    return read_joints("data/cache/tiny/joints.h5")


def people(count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, [WIDTH, HEIGHT, 1], (count, 17, 3))


def write_kpr(points: np.ndarray, scale: float = 1) -> None:
    for name, row in zip(names(), points, strict=True):
        place = Path(f"points/{name}_keypoints.json")
        place.parent.mkdir(parents=True, exist_ok=True)
        seen = row * [scale, scale, 1]
        other = {"keypoints": (seen / 2).tolist(), "is_target": False}
        place.write_text(json.dumps([other, {"keypoints": seen.tolist(), "is_target": True}]))


def write_coco(points: np.ndarray) -> None:
    entries = [{"image_id": Path(name).name, "keypoints": row.ravel().tolist(), "score": score}
               for name, row in zip(names(), points, strict=True) for score in (2.0,)]
    other = {"image_id": Path(names()[0]).name, "keypoints": [0.0] * 51, "score": 1.0}
    Path("points").write_text(json.dumps([other, *entries]))


def test_coco_s_18_are_the_17_by_their_names_and_a_neck():
    for joint, source in enumerate(FROM_COCO17):
        assert COCO18[joint] == ("neck" if source is None else COCO17[source])
    points = people()
    found = coco18(points)
    np.testing.assert_allclose(found[:, 1, :2], (points[:, 5, :2] + points[:, 6, :2]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1, 2], np.minimum(points[:, 5, 2], points[:, 6, 2]), rtol=1e-6)


@pytest.mark.parametrize(("estimator", "write", "more"), [
    ("kpr", write_kpr, {}), ("coco", write_coco, {}),
    ("kpr", lambda points: write_kpr(points, 2.5), {"scale": 2.5})])
def test_key_points_become_the_joints_that_sorn_reads(root, capsys, estimator, write, more):
    points = people()
    write(points)
    joints = made(estimator, **more)
    places, heights = joints.of(names()[::-1])
    np.testing.assert_allclose(places, coco18(points)[::-1], atol=1e-4)
    assert heights.tolist() == [HEIGHT] * COUNT
    shown = stripes_with_joints(places, heights, 4)
    assert shown.shape == (COUNT, 4) and shown.any() and joints.shares({"a": names()[0]})["a"].shape == (18, 3)
    first = Path("data/cache/tiny/joints.h5").read_bytes()
    made(estimator, **more)
    assert Path("data/cache/tiny/joints.h5").read_bytes() == first
    said = capsys.readouterr()
    assert f"tiny: joints of {COUNT} people in {COUNT} pictures" in said.out
    assert ("in 1 the surest of several people was taken" in said.err) == (estimator == "coco")


def test_nobody_has_no_joints_and_is_counted(root, capsys):
    write_kpr(people())
    Path(f"points/{names()[2]}_keypoints.json").write_text("[]")
    places, heights = made("kpr").of(names())
    assert not places[2].any() and not stripes_with_joints(places, heights, 3)[2].any()
    assert "'points': 1 of 6 pictures have nobody" in capsys.readouterr().err

    entries = [{"image_id": name, "keypoints": row.ravel().tolist()}
               for name, row in zip([*names()[:4], "else.jpg"], people(5), strict=True)]
    Path("coco.json").write_text(json.dumps(entries))
    made("coco", "coco.json")
    assert "2 of 6 pictures have nobody, 1 of its pictures are none of the index" in capsys.readouterr().err


def test_bad_key_points_are_one_sentence_and_what_was_there_stays(root):
    write_kpr(people())
    made("kpr")
    before = Path("data/cache/tiny/joints.h5").read_bytes()
    write_kpr(people(), 3)
    with pytest.raises(InputError, match=r"'points': 6 of 6 pictures have key points that are not theirs: .* of a "
                                         r"picture of 32x16.* and 3 more; .*`scale` how much \(it is 1\)") as caught:
        made("kpr")
    assert "\n" not in str(caught.value)
    write_kpr(people())
    Path(f"points/{names()[3]}_keypoints.json").unlink()
    with pytest.raises(InputError, match=r"holds no parse of '.*0003.*' \(1 of 6 are missing"):
        made("kpr")
    Path("coco.json").write_text(json.dumps([{"image_id": "x.jpg", "keypoints": [0.0] * 51}]))
    with pytest.raises(InputError, match=r"'coco.json': none of its 1 pictures is of an image of the index"):
        made("coco", "coco.json")
    with pytest.raises(InputError, match="cannot be read|is no folder|holds no"):
        made("coco", "none.json")
    assert Path("data/cache/tiny/joints.h5").read_bytes() == before


def test_a_missing_library_or_checkpoint_is_named(root):
    Path("points").mkdir()
    with pytest.raises(InputError, match="transformers is not installed|holds no ViTPose checkpoint") as caught:
        made("vitpose")
    assert "\n" not in str(caught.value)


def test_vitpose_s_points_are_its_heat_maps_peaks(root):
    """A small one of random weights: each point lies where its heat map is highest, brought back to the crop."""
    from models.torchvision_import import import_torchvision
    pytest.importorskip("transformers", reason="transformers is not installed")
    import_torchvision()
    import torch
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation, VitPoseImageProcessor

    from pipeline.base.images import read_image
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(image_size=(64, 48), patch_size=(16, 16), hidden_size=16, num_hidden_layers=2,
                                     num_attention_heads=2, mlp_ratio=2, out_indices=[2])
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=True, scale_factor=4)
    VitPoseForPoseEstimation(config).save_pretrained("points")
    processor = VitPoseImageProcessor(size={"height": 64, "width": 48})
    processor.save_pretrained("points")
    joints = made("vitpose", batch=4)
    places, heights = joints.of(names())
    assert places.shape == (COUNT, 18, 3) and heights.tolist() == [HEIGHT] * COUNT

    model = VitPoseForPoseEstimation.from_pretrained("points").eval()
    picture = read_image(Path("raw") / names()[1])
    pixels = processor([picture], boxes=[[[0.0, 0.0, WIDTH, HEIGHT]]], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        maps = model(pixel_values=pixels).heatmaps[0]
    rows, columns = maps.shape[1:]
    for joint, source in enumerate(FROM_COCO17):
        if source is not None:
            peak = int(maps[source].argmax())
            side = max(HEIGHT, WIDTH * 64 / 48) * 1.25  # the processor's box: 4 : 3, a quarter larger
            wanted = ((peak % columns + 0.5) / columns - 0.5) * side * 48 / 64 + WIDTH / 2, \
                ((peak // columns + 0.5) / rows - 0.5) * side + HEIGHT / 2
            assert np.abs(places[1, joint, :2] - wanted).max() < side / rows * 1.6, COCO18[joint]
            assert places[1, joint, 2] == pytest.approx(min(max(float(maps[source].max()), 0), 1), abs=1e-5)
