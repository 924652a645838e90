"""Training step of each network over its bare backbone's, and DSAG's branches done three ways. Prints Markdown.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.step_time                        # the default's size, ~2 minutes
    python -m benchmarks.step_time --layouts --backbone mobilenetv2_100 --batch 32  # channels first over channels last
    python -m benchmarks.step_time --backbone resnet50 --height 384 --width 128 --batch 8 --dsag-width 1 --channels 3072

A step is forward and backward of one batch of random numbers, without optimiser and loading; "bare" is the whole ResNet
with stride 1 in its last stage and a mean over its map. All steps take turns in one process, and the fastest of
`--repeats` counts. Each is done in float32 and in bfloat16, which training takes where the device multiplies it
natively. FLOPs are torch's own count of the same step's products. On a machine with other work use `--threads 1 --clock
process`, which counts this process's processor time alone.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import models.dsa
from models.backbone import Backbone
from models.dsa import DsagStream
from tests.helpers.networks import network

IDS = 100
BARE = "bare backbone"
# Table 1's branched convolutions: name, branches, inputs, outputs, kernel, stride, side of the input.
LAYERS = [("conv1", 24, 3, 32, 5, 1, 32), ("conv2", 24, 32, 64, 3, 1, 32), ("conv3, strided", 24, 64, 64, 3, 2, 32),
          ("conv3", 24, 64, 64, 3, 1, 16), ("conv4, strided", 13, 64, 128, 3, 2, 16), ("conv4", 13, 128, 128, 3, 1, 8),
          ("conv5_l", 8, 256, 256, 3, 1, 8)]


class Bare(nn.Module):
    """The backbone alone, with something to go backward from."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.backbone(batch["image"])[-1].mean(), {}


def networks(options: argparse.Namespace) -> dict[str, nn.Module]:
    def backbone() -> Backbone:
        return Backbone(architecture=options.backbone, init="none")

    def of(recipe: str, **settings: Any) -> Any:
        return network(recipe, backbone=backbone(), ids=IDS, **settings)

    width, sgsfa, sgam = options.dsag_width, of("sgsfa"), of("sgam")
    for measured in (sgsfa, sgam):
        measured.medians.fill_(0.1)

    return {BARE: Bare(backbone()), "baseline": of("baseline"), "ESA-ReID": of("esa"), "SGSFA": sgsfa, "SGAM": sgam,
            "SORN": of("sorn", tau=0.15, channels=options.channels),
            "DSA two branches (no DSAG)": of("dsa", use_dsag=False),
            f"DSA, DSAG width {width:g}": of("dsa", dsag_width=width)}


def random_batch(options: argparse.Namespace, count: int) -> dict[str, Tensor]:
    height, width = options.height, options.width
    image = torch.randn(count, 3, height, width).contiguous(memory_format=torch.channels_last)
    batch = {"image": image, "pid": torch.arange(count) // 4 % IDS, "dsap": torch.randn(count, 24, 3, 32, 32),
             "labels": torch.randint(0, 8, (count, height // 4, width // 4)),
             "labels16": torch.randint(0, 8, (count, height // 16, width // 16)),
             "probs4": torch.rand(count, 5, height // 4, width // 4).softmax(1), "uniform": torch.rand(count)}
    return {name: tensor.to(options.device) for name, tensor in batch.items()}


def fastest(steps: dict[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of the fastest of `repeats` turns of each step, after one turn to warm up."""
    clock = time.process_time if options.clock == "process" else time.perf_counter
    best = dict.fromkeys(steps, float("inf"))
    for turn in range(options.repeats + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn:
                best[name] = min(best[name], 1000 * (clock() - start))
    return best


def step_of(model: nn.Module, batch: dict[str, Tensor], *, bfloat16: bool = False) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad()
        with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=bfloat16):
            loss = model(batch)[0]
        loss.backward()

    return step


def convolution_backward(gradient: list[int], x: list[int], weight: list[int], *given: Any, **_named: Any) -> int:
    """FLOPs from shapes: as many for each gradient as the forward pass has. torch's own count is wrong for groups."""
    transposed, wanted = given[4], given[7]  # wanted: of x, weight and bias
    places = math.prod((x if transposed else gradient)[2:])
    return 2 * x[0] * places * math.prod(weight) * sum(wanted[:2])


def flops(model: nn.Module, options: argparse.Namespace) -> float:
    """GFLOP of one image's training step."""
    model = model.cpu()
    mapping = {torch.ops.aten.convolution_backward: convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        step_of(model, {name: tensor.cpu() for name, tensor in random_batch(options, 4).items()})()
    model.to(options.device)
    return counter.get_total_flops() / 4 / 1e9


def steps_table(options: argparse.Namespace) -> None:
    built = {name: model.to(options.device, memory_format=torch.channels_last)
              for name, model in networks(options).items()}
    work = {name: flops(model, options) for name, model in built.items()}
    batch = random_batch(options, options.batch)
    both = {f"{precision} {name}": step_of(model, batch, bfloat16=precision == "bfloat16")
            for name, model in built.items() for precision in ("float32", "bfloat16")}
    times = fastest(both, options)
    print("| network | precision | step, ms | over bare backbone | GFLOP an image | FLOP ratio | time / FLOP ratio | "
          "over float32 |")
    print("|---|---|---|---|---|---|---|---|")
    for precision in ("float32", "bfloat16"):
        for name in built:
            ms = times[f"{precision} {name}"]
            ratio, flop_ratio = ms / times[f"{precision} {BARE}"], work[name] / work[BARE]
            print(f"| {name} | {precision} | {ms:.0f} | {ratio:.2f} | {work[name]:.2f} | {flop_ratio:.2f} | "
                  f"{ratio / flop_ratio:.2f} | {ms / times[f'float32 {name}']:.2f} |")


def stream_ways(batch: int, width: float, device: str, *, bfloat16: bool = False) -> dict[str, Callable[[], None]]:
    """The whole DSAG-Stream but conv5_g, from the 24 images to d_L: every layer, normalisation and memory layout."""
    size = round(2048 * width)
    stream = DsagStream(sizes={"global": size, "local": size}, width=width, use_global=False, use_local=True)
    stream = stream.to(device, memory_format=torch.channels_last)
    dsap = torch.randn(batch, 24, 3, 32, 32, device=device)

    def step(looped: bool) -> None:
        original, models.dsa.looped = models.dsa.looped, lambda x: looped
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = stream(dsap)[1].float().square().mean()
        loss.backward()
        models.dsa.looped = original

    return {"loop": lambda: step(True), "grouped": lambda: step(False)}


def images(options: argparse.Namespace, width: float) -> int:
    return options.batch if width <= 0.25 else max(4, options.batch // 16)  # 16 times the work an image


def loop(x: list[Tensor], w: Tensor, stride: int) -> Tensor:
    parts = zip(x, w.chunk(len(x)), strict=True)
    return torch.stack([F.conv2d(a, b, stride=stride, padding=w.shape[-1] // 2).mean() for a, b in parts]).sum()


def grouped(x: Tensor, w: Tensor, stride: int, branches: int) -> Tensor:
    return F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2, groups=branches).mean()


def matmul(x: Tensor, w: Tensor, stride: int, branches: int) -> Tensor:
    columns = F.unfold(x, w.shape[-1], padding=w.shape[-1] // 2, stride=stride)  # (B, G C k k, h w)
    return (w.flatten(1).unflatten(0, (branches, -1)) @ columns.unflatten(1, (branches, -1))).mean()


def layer_ways(batch: int, layer: tuple, width: float, device: str, dtype: torch.dtype = torch.float32
               ) -> dict[str, Callable[[], None]]:
    """One convolution of all branches, forward and backward, each way in the memory layout that suits it."""
    _, branches, _, _, kernel, stride, side = layer
    inputs, outputs = channels(layer, width)
    leaf = inputs != 3  # the first layer's input needs no gradient
    x = torch.randn(batch, branches * inputs, side, side, device=device, dtype=dtype)
    w = torch.randn(branches * outputs, inputs, kernel, kernel, device=device, dtype=dtype, requires_grad=True)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_(leaf)
    lone = [part.contiguous(memory_format=torch.channels_last).detach().requires_grad_(leaf)
            for part in x.chunk(branches, 1)]
    x.requires_grad_(leaf)
    return {"loop": lambda: loop(lone, w, stride).backward(),
            "grouped": lambda: grouped(last, w, stride, branches).backward(),
            "matmul": lambda: matmul(x, w, stride, branches).backward()}


def channels(layer: tuple, width: float) -> tuple[int, int]:
    """Inputs and outputs of a layer's branch, of which the three of an image stay three."""
    inputs, outputs = layer[2:4]
    return inputs if inputs == 3 else round(width * inputs), round(width * outputs)


def layouts_table(options: argparse.Namespace) -> None:
    """A float32 step of each network with channels first in memory over the same with channels last, as training is."""
    batch = random_batch(options, options.batch)
    print("| network | channels last, ms | first over last |\n|---|---|---|")
    for name in networks(options):
        steps = {}
        for way, layout in (("first", torch.contiguous_format), ("last", torch.channels_last)):
            model = networks(options)[name].to(options.device, memory_format=layout)
            steps[way] = step_of(model, batch | {"image": batch["image"].contiguous(memory_format=layout)})
        ms = fastest(steps, options)
        print(f"| {name} | {ms['last']:.0f} | {ms['first'] / ms['last']:.2f} |", flush=True)


def branches_table(options: argparse.Namespace, width: float) -> None:
    batch = images(options, width)
    print(f"\n| DSAG width {width:g}, {batch} images | branches | loop, ms | grouped, ms | matmul, ms |")
    print("|---|---|---|---|---|")
    for layer in LAYERS:
        ms = fastest(layer_ways(batch, layer, width, options.device), options)
        inputs, outputs = channels(layer, width)
        print(f"| {layer[0]} {inputs} -> {outputs} | {layer[1]} | " + " | ".join(f"{ms[way]:.0f}" for way in ms) + " |",
              flush=True)

    ms = fastest(stream_ways(batch, width, options.device), options)
    print(f"| DSAP images to d_L | 24, 13, 8 | {ms['loop']:.0f} | {ms['grouped']:.0f} | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18", help="resnet18 | resnet50 | a name of timm's")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=768, help="SORN's N c'")
    parser.add_argument("--dsag-width", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "process"], default="wall")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--layouts", action="store_true", help="memory layouts alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{options.backbone}, {options.height} x {options.width}, batch {options.batch}, {options.device}, "
          f"{options.threads} threads, torch {torch.__version__}, {options.clock} time\n")
    if options.layouts:
        return layouts_table(options)
    steps_table(options)
    for width in (0.25, 1.0):
        branches_table(options, width)


if __name__ == "__main__":
    main()
