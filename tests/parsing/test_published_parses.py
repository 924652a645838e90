"""Parses made elsewhere that were published, where they lie beside the project: SCHP's, CIHP's labels, DensePose's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.parsing.engine import quantise
from pipeline.parsing.parse_png import read_iuv
from pipeline.parsing.precomputed import Precomputed

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def parsed(forward: Precomputed, paths: list[str]) -> dict[str, np.ndarray]:
    return {name: maps.numpy() for name, maps in forward(torch.zeros(len(paths), 3, 4, 4), paths).items()}

def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} does not lie beside the project")
    return SHARED / name


def test_real_schp_parses_agree_with_each_other(tmp_path):
    """One photo parsed with LIP's, ATR's and PASCAL's labels: three maps of one person, through three label maps."""
    folder = shared("schp_demo")
    heads = {}
    for labels, name in (("lip20", "lip"), ("atr18", "atr"), ("pascal7", "pascal")):
        (tmp_path / labels).mkdir()
        (tmp_path / labels / "demo.png").write_bytes((folder / f"demo_{name}.png").read_bytes())
        forward = Precomputed(tmp_path / labels, labels=labels, raw=folder, paths=["demo.jpg"], height=160, width=240)
        heads[labels] = parsed(forward, ["demo.jpg"])["parts8"][0]
    for one, other in (("lip20", "atr18"), ("lip20", "pascal7")):
        for part in (1, 2) if other == "atr18" else (1,):
            a, b = heads[one][part] > 0.5, heads[other][part] > 0.5
            assert (a & b).sum() / (a | b).sum() > 0.8, (one, other, part)


def test_real_cihp_labels_are_read(tmp_path):
    folder = shared("cihp_sample")
    paths = sorted(file.name for file in (folder / "images").glob("*.jpg"))
    forward = Precomputed(folder / "labels", labels="cihp20", raw=folder / "images", paths=paths, height=128, width=96)
    result = parsed(forward, paths)
    kept = quantise({name: torch.from_numpy(maps) for name, maps in result.items()})
    assert kept["valid"].all() and (result["native"] > 0).any((1, 2)).all() and result["native"].max() < 20
    for row, path in enumerate(paths):
        found = np.array(Image.open((folder / "labels" / path).with_suffix(".png"))) > 0
        assert abs(found.mean() - 1 + result["parts8"][row, 0].mean()) < 0.01


def test_real_iuv_is_read():
    folder = shared("densepose_demo")
    labels, uv = read_iuv(folder / "demo_im_IUV.png", red_first=False)
    assert set(np.unique(labels)) == set(range(25)) and uv[labels > 0].max() == 255 and not uv[labels == 0].any()
    with pytest.raises(InputError, match="holds the part 255"):
        read_iuv(folder / "demo_im_IUV.png", red_first=True)
    forward = Precomputed(folder, labels="iuv", raw=folder, paths=["demo_im.jpg"], height=300, width=558)
    assert set(np.unique(parsed(forward, ["demo_im.jpg"])["native"])) == set(range(25))
