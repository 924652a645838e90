"""What a good parse lacks: python -m benchmarks.good_parse [--raw data/raw]

Writes pipeline/inspection/good_parse.json, which `stages.tools.audit_cache` compares caches with. The exact labels of
the default's rendered sets are read as the parser `oracle` gives them (densepose24), and as LIP-20 cut into the 8 parts
by the rule that caches are cut by. `least` follows from the 1st percentile of the whole people of synth-holistic: all
18 joints in the frame, nothing in front. Half a minute; `dvc repro` or the stage render makes the sets.
"""

import argparse
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pipeline.base.body_parts import TAXONOMIES, parts8_from_native
from pipeline.base.files import write_json
from pipeline.base.hdf5 import open_h5
from pipeline.inspection.audit import areas_of, has_sides, is_upright
from pipeline.inspection.missing_parts import PEOPLE, TABLE, fault_shares, faults, least_shares
from pipeline.parsing.oracle import Oracle
from stages import sentences


def natives(folder: Path, file: h5py.File, taxonomy: str) -> np.ndarray:
    """Exact labels (N, H, W) of a rendered set."""
    if taxonomy == "lip20":
        return file["lip"][:]
    height, width = file["index"].shape[1:]
    names = file["path"].asstr()[:].tolist()
    oracle = Oracle(folder / "labels.h5", height=height, width=width)
    return oracle(torch.zeros(len(names), 3, 1, 1), names)["native"].numpy()


def whole_people(file: h5py.File) -> np.ndarray:
    """(N,) bool: all joints inside the frame and nothing in front of the person."""
    height, width = file["index"].shape[1:]
    x, y = file["joints"][:, :, 0], file["joints"][:, :, 1]
    inside = ((x >= 0) & (x < width) & (y >= 0) & (y < height)).all(1)
    return inside & (file["occlusion"][:] == 0)


def measured(labels: np.ndarray, native: np.ndarray, taxonomy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """areas (N, 8), upright (N,), sides (N,) of labels and native labels (N, H, W), as the audit measures them."""
    sides = [has_sides(image) if taxonomy == "densepose24" else np.nan for image in native]
    return np.stack([*map(areas_of, labels)]), np.array([*map(is_upright, labels)]), np.array(sides)


def table(raw: Path) -> dict[str, Any]:
    """What good_parse.json holds. InputError where a rendered set is missing or damaged."""
    result: dict[str, Any] = {"made by": "python -m benchmarks.good_parse", "sets": {}, **{
        name: {} for name in TAXONOMIES}}
    for people, name in PEOPLE.items():
        Oracle(raw / name / "labels.h5", height=1, width=1)  # says it if the file is missing or damaged
        with open_h5(raw / name / "labels.h5") as file:
            result["sets"][name] = file.attrs["maker"]
            for taxonomy in TAXONOMIES:
                native = natives(raw / name, file, taxonomy)
                areas, upright, sides = measured(parts8_from_native(native, taxonomy), native, taxonomy)
                if people == "whole":
                    chosen = whole_people(file)
                    result[taxonomy] |= {"images of least": int(chosen.sum()), "least": least_shares(areas[chosen])}
                result[taxonomy][people] = fault_shares(faults(areas, upright, sides, result[taxonomy]["least"]))

    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="the folder of the rendered sets")
    parser.add_argument("--out", type=Path, default=TABLE, help="the table's file")
    arguments = parser.parse_args()
    with sentences():
        write_json(arguments.out, table(arguments.raw))


if __name__ == "__main__":
    main()
