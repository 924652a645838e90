"""A tiny set of images parsed by a parser whose answer depends on their pixels alone."""

import dataclasses
import hashlib
from pathlib import Path

import torch

from pipeline.datasets.index import read_index
from pipeline.parsing.engine import Job, parse_images
from tests.helpers.tiny_set import HEIGHT, WIDTH

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


def parse(root: Path, forward=soft_forward, name: str = "parts.h5", **changes) -> str:
    """The MD5 of parts.h5."""
    failed = parse_images(make_job(root, **changes), forward, root / name, scratch=root / "scratch")
    assert failed == []
    return hashlib.md5((root / name).read_bytes()).hexdigest()
