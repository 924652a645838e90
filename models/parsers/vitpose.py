"""ViTPose: key points of one person a picture, by a checkpoint of `transformers` (Xu et al. 2022), from its folder.

    estimate = load_vitpose("checkpoints/vitpose-base-simple")
    points = estimate([crop, another])              # (2, 17, 3)

The whole picture is the person's box, for a re-ID crop is a person already. The library's own processor cuts, resizes
and reads the heat maps. Code that comes with a checkpoint is never run.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.parsers.hub import NOT_INSTALLED
from models.torchvision_import import import_torchvision

KEYPOINTS = 17
COCO_EXPERT = 0  # of ViTPose+'s, whose backbone has one a data set


def load_vitpose(source: str | os.PathLike, device: str = "cpu") -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Pictures (H, W, 3) uint8 RGB of any sizes -> COCO's 17 points of each (B, 17, 3) float64: x and y in pixels, a
    pixel's centre at .5, and the heat map's peak, 0..1.

    ValueError names the folder and the remedy.
    """
    folder = os.fspath(source)
    try:
        import_torchvision()
        from transformers import AutoImageProcessor, VitPoseForPoseEstimation
    except ImportError as error:
        raise ValueError(NOT_INSTALLED.format(error)) from error

    try:
        model, info = VitPoseForPoseEstimation.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        raise ValueError(f"{folder}: holds no ViTPose checkpoint ({type(error).__name__}: "
                         f"{' '.join(str(error).split())[:160]}); name the folder of one, with config.json, "
                         "preprocessor_config.json and weights") from error

    lacking = sorted(info["missing_keys"]) or sorted(str(entry) for entry in info["mismatched_keys"])
    if lacking:  # transformers would go on with random numbers in their place
        raise ValueError(f"{folder}: lacks {len(lacking)} of its network's weights, the first {lacking[0]}; name a "
                         "checkpoint that was trained for pose estimation")
    if model.config.num_labels != KEYPOINTS:
        raise ValueError(f"{folder}: gives {model.config.num_labels} key points where COCO's {KEYPOINTS} are read; "
                         "name a checkpoint of COCO's")
    model = model.to(device).eval()
    experts = getattr(model.config.backbone_config, "num_experts", 1) > 1

    @torch.inference_mode()
    def estimate(pictures: Sequence[np.ndarray]) -> np.ndarray:
        boxes = [[[0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])]] for picture in pictures]
        pixels = processor(list(pictures), boxes=boxes, return_tensors="pt")["pixel_values"].to(device)
        expert = {"dataset_index": torch.full((len(pictures),), COCO_EXPERT, device=device)} if experts else {}
        found = processor.post_process_pose_estimation(model(pixel_values=pixels, **expert), boxes=boxes)
        points = np.zeros((len(pictures), KEYPOINTS, 3))
        for row, (person,) in zip(points, found, strict=True):
            row[:, :2] = person["keypoints"].numpy() + 0.5  # its own are pixels' numbers
            row[:, 2] = person["scores"].numpy().clip(0, 1)
        return points

    return estimate
