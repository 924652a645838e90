"""The few names of detectron2 and its DensePose that models/parsers/densepose.py uses, and a small R-CNN behind them.

Only for what is imported: tests of the decoding, the boxes and the weights run without the library, whose real self is
asked in `test_the_real_detectron2_decodes_the_same` where it is installed.
"""

import sys
import types
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 14  # of a chart


class Boxes:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Instances:
    def __init__(self, image_size: tuple[int, int], **fields) -> None:
        self.image_size, self.fields = image_size, fields

    def __getattr__(self, name: str):
        return self.__dict__["fields"][name]

    def __len__(self) -> int:
        return len(self.fields["pred_boxes"].tensor)

    def has(self, name: str) -> bool:
        return name in self.fields


@dataclass
class ChartOutput:
    coarse_segm: Tensor
    fine_segm: Tensor
    u: Tensor
    v: Tensor


class Config(dict):
    """A tree with attributes, as yacs has."""

    def __getattr__(self, name: str):
        return self[name]

    def __setattr__(self, name: str, value) -> None:
        self[name] = value

    def merge_from_file(self, path: str, allow_unsafe: bool = True) -> None:
        assert not allow_unsafe, "a configuration must not be read as unsafe YAML"
        merge(self, yaml.safe_load(Path(path).read_text(encoding="utf-8")))

    def dump(self) -> str:
        return repr(self)


def merge(tree: Config, told: dict) -> None:
    for name, value in told.items():
        if name not in tree:
            raise KeyError(f"Non-existent config key: {name}")
        if isinstance(value, dict):
            merge(tree[name], value)
        else:
            tree[name] = value


def get_cfg() -> Config:
    return Config(MODEL=Config(WEIGHTS="https://somewhere/R-50.pkl", DEVICE="cuda", ROI_HEADS=Config(
        SCORE_THRESH_TEST=0.05)), INPUT=Config(MIN_SIZE_TEST=800, MAX_SIZE_TEST=1333, FORMAT="BGR"))


def add_densepose_config(cfg: Config) -> None:
    cfg.MODEL.DENSEPOSE_ON = True
    cfg.MODEL.ROI_DENSEPOSE_HEAD = Config(CSE=Config(EMBEDDERS=Config()), NUM_COARSE_SEGM_CHANNELS=2)


class TinyRCNN(nn.Module):
    """Charts are a convolution of the box's pixels. `found`: boxes in the picture and scores of each picture."""

    def __init__(self, coarse: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, coarse + 75, 3, padding=1)
        self.coarse = coarse
        self.found: list[tuple[list[list[float]], list[float]]] = []
        self.seen: list[tuple[list[dict], list | None]] = []

    def charts(self, picture: Tensor, boxes: Tensor) -> ChartOutput:
        height, width = picture.shape[1:]
        boxes = boxes.clone().long()
        boxes[:, :2] = torch.minimum(boxes[:, :2], torch.tensor([width - 1, height - 1]))
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        pieces = [F.interpolate(picture[None, :, y0:y1, x0:x1], (SIDE, SIDE)) for x0, y0, x1, y1 in boxes.tolist()]
        if not pieces:
            pieces = [picture.new_zeros(0, 3, SIDE, SIDE)]
        return ChartOutput(*self.head(torch.cat(pieces) / 60).split([self.coarse, 25, 25, 25], 1))

    def inference(self, inputs, detected_instances=None, do_postprocess=True):
        assert not self.training
        self.seen.append((inputs, detected_instances))
        if detected_instances is not None:
            for given, entry in zip(detected_instances, inputs, strict=True):
                assert given.image_size == tuple(entry["image"].shape[1:]) and not do_postprocess
                given.fields["pred_densepose"] = self.charts(entry["image"], given.pred_boxes.tensor)
            return detected_instances
        results = []
        for entry, (boxes, scores) in zip(inputs, self.found, strict=True):
            size = torch.tensor([entry["width"], entry["height"]] * 2)
            scale = torch.tensor([*entry["image"].shape[:0:-1]] * 2) / size
            tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
            results.append({"instances": Instances((entry["height"], entry["width"]), pred_boxes=Boxes(tensor),
                            scores=torch.tensor(scores), pred_densepose=self.charts(entry["image"], tensor * scale))})
        return results


def build_model(cfg: Config) -> TinyRCNN:
    assert cfg.MODEL.WEIGHTS == "", "nothing may be downloaded"
    torch.manual_seed(0)
    return TinyRCNN(cfg.MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS)


def install(monkeypatch) -> None:
    """Put the modules where an import finds them, until the test ends."""
    names = {"detectron2": {"__version__": "fake"}, "detectron2.structures": {"Boxes": Boxes, "Instances": Instances},
             "detectron2.config": {"get_cfg": get_cfg}, "detectron2.modeling": {"build_model": build_model},
             "densepose": {"add_densepose_config": add_densepose_config}}
    for name, content in names.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
