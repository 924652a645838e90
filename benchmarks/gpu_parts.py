"""Parts of benchmarks/gpu.py: what each measures, row by row, on the device that it is given, and what falls short.

B images a batch. A row is a flat dict of texts and numbers; a number is None where the device has none of it.
"""

import argparse
import copy
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm

from benchmarks.step_time import LAYERS, channels, fastest, flops, layer_ways, random_batch, stream_ways
from models import distributed_batch
from models.backbone import Backbone
from pipeline.config.profiles import like
from pipeline.training import distributed
from pipeline.training.optimizers import Optimizer, adam_update, sgd_update
from tests.helpers.networks import RECIPES, network, with_statistics

MFU, CLOSE, SENT = 0.35, 1e-3, 1e-5
NETWORKS = ("baseline", "pcb", "esa", "sgsfa", "sgam", "dsa", "sorn")
DIFFERENCES = ("features", "visibility", "loss", "next loss")
NUMBERS = ("float32", "TF32", "bfloat16")
RATE = 1e-3  # of the step between the two losses

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large the parts build. height, width, batch: None is the paper's of each network; batches: of throughput."""

    backbone: str = "resnet50"
    height: int | None = None
    width: int | None = None
    batch: int | None = None
    checked: int = 8  # images of the comparison with the CPU
    batches: tuple[int, ...] = (64, 128, 256)
    dsag_widths: tuple[float, ...] = (0.25, 1.0)
    branch_images: int = 64
    steps: int = 10  # between two looks at the clock
    windows: int = 3  # of so many steps, of which the fastest counts


FULL = Size()
SMALL = Size(backbone="resnet18", height=96, width=32, batch=8, batches=(8,), dsag_widths=(0.0625,), branch_images=2,
             steps=1, windows=1)


def built(recipe: str, size: Size) -> Any:
    """The recipe's network of 100 people."""
    changes: dict[str, Any] = {"sorn": {"tau": 0.15}}.get(recipe, {})
    if recipe == "dsa" and size.dsag_widths[-1] != 1:
        changes = {"dsag_width": size.dsag_widths[-1]}
    made = network(recipe, backbone=Backbone(architecture=size.backbone, init="none"), ids=100, **changes)
    if hasattr(made, "medians"):
        made.medians.fill_(0.1)
    return made


def options(size: Size, device: str, recipe: str = "baseline", **more: Any) -> argparse.Namespace:
    """Size, batch and clock, as benchmarks/step_time.py takes them."""
    entry = like(RECIPES[recipe], RECIPES, recipe)
    return argparse.Namespace(**{"height": size.height or entry["height"], "width": size.width or entry["width"],
                                 "batch": size.batch or entry["batch"], "device": device, "clock": "wall",
                                 "repeats": min(5, size.steps)} | more)


def networks(size: Size, device: str, _peak: float | None) -> Iterator[Row]:
    """Each network on the CPU and on the device, the same weights and images."""
    for recipe in NETWORKS:
        torch.manual_seed(0)
        model = with_statistics(built(recipe, size))
        batch = random_batch(options(size, "cpu", recipe), size.checked)
        expected = outcome(model, batch, bfloat16=False)
        for numbers in NUMBERS:
            row = {"network": recipe, "numbers": numbers, **dict.fromkeys(DIFFERENCES), "failure": ""}
            try:
                with tf32(numbers == "TF32"):
                    found = outcome(model, moved(batch, device), bfloat16=numbers == "bfloat16")
                row |= zip(DIFFERENCES, (apart(found[0], expected[0]), apart(found[1], expected[1]),
                                         relative(found[2], expected[2]), relative(found[3], expected[3])), strict=True)
            except RuntimeError as error:  # the device's: no such kernel, no memory; the others go on
                row["failure"] = str(error).splitlines()[0]
            yield row


def short_networks(rows: list[Row]) -> list[str]:
    failed = [f"{row['network']} in {row['numbers']}: {row['failure']}" for row in rows if row["failure"]]
    asked = [(row, name) for row in rows if not row["failure"] for name in ("features", "loss", "next loss")
             if row["numbers"] == "float32" or (row["numbers"] == "TF32" and name == "features")]
    return failed + [f"{row['network']} in {row['numbers']}: {name} differs by {row[name]:.1e}, and {CLOSE:.0e} is "
                     "asked" for row, name in asked if not row[name] <= CLOSE]


def outcome(model: Any, batch: dict[str, Tensor], *, bfloat16: bool) -> tuple[Tensor, Tensor, float, float]:
    """Features, visibility, the loss of a training step and that after it, on the batch's device and in float64."""
    device = batch["image"].device
    model = placed(copy.deepcopy(model), device)
    features, visibility = embed(model, batch, bfloat16=bfloat16)
    model.train()
    optimizer = Optimizer([{"params": model.parameters(), "lr": RATE}], sgd_update, weight_decay=0.0)
    losses = [training_step(model, optimizer, batch, bfloat16=bfloat16) for _ in range(2)]
    return features.double().cpu(), visibility.double().cpu(), losses[0], losses[1]


def training_step(model: nn.Module, optimizer: Optimizer, batch: dict[str, Tensor], *, bfloat16: bool
                  ) -> float:
    """The loss before the step."""
    with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=bfloat16):
        loss = model(batch)[0]
    shown = loss.item()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return shown


def layouts(size: Size, device: str, _peak: float | None) -> Iterator[Row]:
    """The baseline's training step at its paper's size."""
    setting, first = options(size, device), None
    for bfloat16 in (False, True):
        for last in (False, True):
            step = stepper(built("baseline", size), random_batch(setting, setting.batch), bfloat16=bfloat16, last=last)
            seconds = per_step(step, size)
            first = first or seconds
            yield {"numbers": "bfloat16" if bfloat16 else "float32", "channels": "last" if last else "first",
                   "ms a step": 1000 * seconds, "images/s": setting.batch / seconds, "speedup": first / seconds}


def memory(size: Size, device: str, _peak: float | None) -> Iterator[Row]:
    """Megabytes allocated at the most; none on a CPU, which does not count them."""
    for recipe in NETWORKS:
        setting = options(size, device, recipe)
        for bfloat16 in (False, True):
            model, batch = placed(built(recipe, size), torch.device(device)), random_batch(setting, setting.batch)
            row = {"network": recipe, "images": f"{setting.batch} of {setting.height} x {setting.width}",
                   "numbers": "bfloat16" if bfloat16 else "float32",
                   "weights, MB": sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6}
            embedding = allocated(functools.partial(embed, model, batch, bfloat16=bfloat16))
            step = stepper(model, batch, bfloat16=bfloat16)
            yield row | {"embedding, MB": embedding, "training, MB": allocated(step)}


@torch.inference_mode()
def embed(model: Any, batch: dict[str, Tensor], *, bfloat16: bool) -> tuple[Tensor, Tensor]:
    with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=bfloat16):
        return model.eval().embed(batch)


def allocated(action: Callable[[], object]) -> float | str | None:
    """MB, of two turns: the first makes the optimiser's state."""
    if not torch.cuda.is_available():
        action()
        return None
    try:
        action()
        torch.cuda.reset_peak_memory_stats()
        action()
        return torch.cuda.max_memory_allocated() / 1e6
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "does not fit"


def throughput(size: Size, device: str, peak: float | None) -> Iterator[Row]:
    """The baseline's training step; `as trained` with deterministic kernels, `free` with those cuDNN finds fastest."""
    wide = {"height": size.height or 384, "width": size.width or 128}
    work = flops(built("baseline", size), options(size, device, **wide))  # GFLOP an image
    for batch in size.batches:
        for kernels in ("as trained", "free"):
            with free_kernels(kernels == "free"):
                step = stepper(built("baseline", size), random_batch(options(size, device, **wide), batch),
                               bfloat16=True)
                speed = batch / per_step(step, size)
            yield {"batch": batch, "kernels": kernels, "images/s": speed, "GFLOP an image": work,
                   "TFLOP/s": speed * work / 1000, "MFU": speed * work / 1000 / peak if peak else None}


def short_throughput(rows: list[Row]) -> list[str]:
    reached = [row["MFU"] for row in rows if row["MFU"] is not None]
    if not reached:
        return ["the peak of this device is not known, so that there is no MFU; give it as --peak TFLOP/s"]
    return [] if max(reached) >= MFU else [f"MFU is {max(reached):.2f} at best, and {MFU} is asked"]


def branches(size: Size, device: str, _peak: float | None) -> Iterator[Row]:
    """Milliseconds forward and backward, each way, of Table 1's layers and of the whole stream."""
    setting, images = options(size, device), size.branch_images
    for width in size.dsag_widths:
        for bfloat16 in (False, True):
            dtype = torch.bfloat16 if bfloat16 else torch.float32
            head = {"width": width, "numbers": "bfloat16" if bfloat16 else "float32"}
            for layer in LAYERS:
                inputs, outputs = channels(layer, width)
                ms = fastest(layer_ways(images, layer, width, device, dtype), setting)
                yield head | {"layer": f"{layer[0]} {inputs} -> {outputs}", "branches": layer[1]} | ms
            ms = fastest(stream_ways(images, width, device, bfloat16=bfloat16), setting)
            yield head | {"layer": "DSAP images to d_L", "branches": "24, 13, 8"} | ms | {"matmul": None}


def nccl(_size: Size, device: str, _peak: float | None) -> Iterator[Row]:
    """One process sends as if there were two, of whom the other adds nothing: sums stay, means are halves."""
    backend = "nccl" if device == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, store=dist.FileStore(f"{folder}/store", 1), rank=0, world_size=1)
        with mock.patch.object(distributed, "count", lambda: 2), \
                mock.patch.object(distributed_batch, "processes", lambda: 2):
            for sent, difference in exchanges(device):
                yield {"backend": backend, "sent": sent, "difference": difference}
        dist.destroy_process_group()


def exchanges(device: str) -> Iterator[tuple[str, float]]:
    """What is sent, and by how much it comes back otherwise than it should."""
    rows = torch.randn(8, 32, device=device, requires_grad=True)
    whole, = distributed_batch.whole_batch(rows)
    yield "rows of the whole batch", apart(whole, torch.cat([rows, torch.zeros_like(rows)]))
    whole.square().sum().backward()
    assert rows.grad is not None
    yield "and their gradients", apart(rows.grad, 2 * rows)

    weight = nn.Parameter(torch.zeros(1000, 1000, device=device))
    weight.grad = torch.randn_like(weight)
    half = weight.grad / 2
    distributed.average_gradients([weight])
    yield "mean of gradients", apart(weight.grad, half)
    yield "mean of numbers", abs(distributed.average({"loss": 3.0}, torch.device(device))["loss"] - 1.5)

    copied = half.clone()
    dist.broadcast(copied, 0)
    yield "copies of weights", apart(copied, half)
    if device == "cuda":  # it has no CPU kernels
        norm, x = nn.BatchNorm2d(16).to(device), torch.randn(8, 16, 4, 4, device=device)
        spread = SyncBatchNorm.apply(x, norm.weight, norm.bias, torch.zeros_like(norm.bias),
                                     torch.ones_like(norm.weight), norm.eps, 0.1, dist.group.WORLD, 1)
        yield "statistics of batch normalisation", apart(spread, norm(x))


def short_nccl(rows: list[Row]) -> list[str]:
    return [f"{row['sent']}: came back {row['difference']:.1e} otherwise" for row in rows
            if not row["difference"] <= SENT]


def moved(batch: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}  # channels last stay last


def placed(model: Any, device: torch.device) -> Any:
    return model.to(device, memory_format=torch.channels_last)


def stepper(model: nn.Module, batch: dict[str, Tensor], *, bfloat16: bool, last: bool = True) -> Callable[[], object]:
    """A training step of the network on the batch's device, channels last or first."""
    layout = torch.channels_last if last else torch.contiguous_format
    batch = batch | {"image": batch["image"].contiguous(memory_format=layout)}
    model = model.to(batch["image"].device, memory_format=layout).train()
    adam = adam_update((0.9, 0.999), decoupled=False)
    optimizer = Optimizer([{"params": model.parameters(), "lr": RATE}], adam, weight_decay=5e-4)

    def step() -> None:
        model.train()
        training_step(model, optimizer, batch, bfloat16=bfloat16)

    return step


def per_step(step: Callable[[], object], size: Size) -> float:
    """Seconds of a step in the fastest window, after one to warm up."""
    seconds = []
    for _ in range(1 + size.windows):
        start = time.perf_counter()
        for _ in range(size.steps):
            step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / size.steps)
    return min(seconds[1:])


def apart(one: Tensor, two: Tensor) -> float:
    return float((one - two).detach().abs().max())


def relative(one: float, two: float) -> float:
    return abs(one - two) / abs(two)


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Whether convolutions may round their factors to TF32, which is torch's default on CUDA."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, wanted
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def free_kernels(wanted: bool) -> Iterator[None]:
    """Kernels that need not give the same twice, the fastest of those that cuDNN tries."""
    before = torch.get_deterministic_debug_mode()
    if wanted:
        torch.set_deterministic_debug_mode("default")
        torch.backends.cudnn.benchmark = True
    yield
    torch.backends.cudnn.benchmark = False
    torch.set_deterministic_debug_mode(before)


Judge = Callable[[list[Row]], list[str]]
PARTS: dict[str, tuple[Callable[[Size, str, float | None], Iterator[Row]], int, Judge]] = {  # and its seconds
    "networks": (networks, 150, short_networks), "layouts": (layouts, 60, lambda rows: []),
    "memory": (memory, 90, lambda rows: []), "throughput": (throughput, 90, short_throughput),
    "branches": (branches, 90, lambda rows: []), "nccl": (nccl, 45, short_nccl)}
