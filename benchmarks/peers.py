"""A ResNet-50's training step and embedding against torchreid's own engine, time and peak memory. Prints Markdown.

    python -m benchmarks.peers --torchreid FOLDER [--threads 2 --batch 8 --steps 4 --repeats 3]

FOLDER is a clone of KaiyangZhou/deep-person-reid; beside what is installed here it needs `pip install tensorboard
gdown`. One setting for both: 256 x 128, stride 1 in the last stage, one linear classifier, softmax loss with label
smoothing 0.1, Adam at 3e-4 with weight decay 5e-4, float32, the same weights, the same batches of random numbers in
memory, the same threads. Ours trains by pipeline/training/loop.py (with DVCLive's log) and embeds by
pipeline/retrieval/features.py; torchreid by ImageSoftmaxEngine's `train` and `extract_features`. Both must begin with
the same loss and give the same features, or the benchmark stops.

A step is what passes between two batches' being asked for, the engine's own work included; the fastest of all counts,
after one to warm up. Each engine and task runs in a process of its own, in turns, `--repeats` times; memory is what the
process held at the most above what it held before its network was built. Ours stands there in bfloat16 too, which
training takes where the device multiplies it natively (the FLOPs are the same, the numbers are not). The defaults take
about five minutes on two quiet cores.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models.parsers  # noqa: F401 # makes torchvision, which torchreid imports, importable beside a CPU-only torch
from models.backbone import Backbone
from models.losses import accuracy, smoothed_cross_entropy
from pipeline.base.seeds import rng
from pipeline.retrieval.features import embed_images
from pipeline.training.loop import fit, make_optimizer

IDS, RATE, DECAY = 751, 3e-4, 5e-4
CPU = torch.device("cpu")
SAME = 1e-4  # relative difference of the first losses, difference of features at length 1
SIDES = ("torchreid", "ours", "ours, bfloat16")

Batch = dict[str, Tensor]


class Softmax(nn.Module):
    """The backbone, its mean, one linear classifier: torchreid's ResNet-50 with stride 1 in its last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(architecture="resnet50", init="none")
        self.classifier = nn.Linear(self.backbone.width, IDS)
        self.sizes = (self.backbone.width,)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.classifier(self.backbone(batch["image"])[-1].mean((2, 3)))  # (B, 3, H, W) -> (B, D) -> (B, J)
        loss = smoothed_cross_entropy(logits, batch["pid"], smoothing=0.1)
        return loss, {"accuracy": accuracy(logits, batch["pid"])}

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        f = F.normalize(self.backbone(batch["image"])[-1].mean((2, 3)), dim=1)
        return f, f.new_ones(len(f), 1)


def start() -> dict[str, Tensor]:
    """The weights that both begin with, by torchvision's names."""
    torch.manual_seed(0)
    network = Softmax()
    return {name.removeprefix("backbone."): tensor for name, tensor in network.state_dict().items()}


def batches(count: int, size: int, height: int, width: int) -> list[Batch]:
    draw = rng(0, "peers")
    return [{"image": torch.from_numpy(draw.standard_normal((size, 3, height, width), dtype=np.float32)),
             "pid": torch.from_numpy(draw.integers(0, IDS, size)), "row": torch.arange(size)} for _ in range(count)]


class Watched:
    """Batches whose times of being asked for are kept; the engine's loader."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.asked = batches, []  # type: tuple[list[Batch], list[float]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.asked.append(time.perf_counter())
            yield batch

    def fastest(self) -> float:
        return min(later - earlier for earlier, later in list(zip(self.asked, self.asked[1:], strict=False))[1:])


def ours(task: str, loader: Watched, precision: str) -> tuple[list[float], np.ndarray | None]:
    """Losses, or features at length 1."""
    network = Softmax()
    network.load_state_dict({name if name.startswith("classifier.") else f"backbone.{name}": tensor
                             for name, tensor in start().items()})
    size = len(loader.batches[0]["pid"])
    if task == "embedding":
        return [], embed_images(network, iter(loader), count=size * len(loader), device=CPU)[0]

    optimizer = make_optimizer([], list(network.parameters()), name="adam", weight_decay=DECAY, pretrained_lr_factor=1)
    with tempfile.TemporaryDirectory() as folder:
        history = fit(network, optimizer, batches=lambda first: iter(loader), steps=len(loader), batch_size=size,
                      rate=lambda share: RATE, seed=0, device=CPU, precision=precision, scratch=f"{folder}/scratch",
                      live=f"{folder}/live", keys=[])
    return [row["loss"] for row in history], None


def torchreids(task: str, loader: Watched) -> tuple[list[float], np.ndarray | None]:
    import torchreid
    from torchreid.models.resnet import Bottleneck, ResNet

    network = ResNet(num_classes=IDS, loss="softmax", block=Bottleneck, layers=[3, 4, 6, 3], last_stride=1)
    network.load_state_dict(start())
    optimizer = torchreid.optim.build_optimizer(network, optim="adam", lr=RATE, weight_decay=DECAY, adam_beta2=0.999)
    data = SimpleNamespace(train_loader=loader, test_loader={}, num_train_pids=IDS)
    engine = torchreid.engine.ImageSoftmaxEngine(data, network, optimizer, use_gpu=False, label_smooth=True)
    loader.batches = [{"img": batch["image"], "pid": batch["pid"]} for batch in loader.batches]
    if task == "embedding":
        engine.set_model_mode("eval")
        with torch.no_grad():
            features = [engine.extract_features(batch["img"]).cpu() for batch in loader]
        return [], F.normalize(torch.cat(features), dim=1).numpy()

    losses, step = [], engine.forward_backward

    def watched(batch: Any) -> dict[str, float]:
        summary = step(batch)
        losses.append(summary["loss"])
        return summary

    engine.forward_backward, engine.max_epoch = watched, 1
    engine.train(print_freq=len(loader) + 1)
    return losses, None


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own does: seconds an image, MB, and the numbers by which both are compared."""
    torch.set_num_threads(given.threads)
    side, task = given.measure
    loader = Watched(batches(given.steps + 1, given.batch, given.height, given.width))
    if side == "torchreid":
        sys.path.insert(0, str(given.torchreid))
        import torchreid  # noqa: F401 # before memory is read
    before = peak()
    losses, features = (torchreids(task, loader) if side == "torchreid" else
                        ours(task, loader, "bfloat16" if "bfloat16" in side else "float32"))
    return {"seconds": loader.fastest() / given.batch, "memory": peak() - before, "losses": losses,
            "features": None if features is None else features[:2].tolist()}


def peak() -> float:
    """MB that this process has held at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def child(given: argparse.Namespace, side: str, task: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.peers", "--torchreid", str(given.torchreid), "--measure", side, task]
    for name in ("threads", "batch", "steps", "height", "width"):
        command += [f"--{name}", str(getattr(given, name))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side}, {task}: {(done.stderr.strip().splitlines() or ['failed without a word'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def same(task: str, one: dict[str, Any], two: dict[str, Any]) -> None:
    """SystemExit if the two did not compute the same."""
    if task == "training":
        first, other = one["losses"][0], two["losses"][0]
        if not abs(first - other) <= SAME * abs(first):
            raise SystemExit(f"the two engines begin with other losses, {first} and {other}: they are not comparable")
    elif not np.abs(np.subtract(one["features"], two["features"])).max() <= SAME:
        raise SystemExit("the two engines give other features of the same images: they are not comparable")


def best(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Milliseconds an image and MB, the least of a side's runs."""
    return 1000 * min(run["seconds"] for run in runs), min(run["memory"] for run in runs)


def compare(given: argparse.Namespace, measured: Callable[[argparse.Namespace, str, str], dict[str, Any]]) -> None:
    print(f"{given.height} x {given.width}, batch {given.batch}, {given.threads} threads, torch {torch.__version__}\n")
    print("| task | engine | ms an image | over torchreid | peak MB | over torchreid |\n|---" + "|---" * 5 + "|")
    for task, sides in (("training", SIDES), ("embedding", SIDES[:2])):
        runs: dict[str, list] = {side: [] for side in sides}
        for _ in range(given.repeats):
            for side in sides:
                runs[side].append(measured(given, side, task))
        same(task, runs["torchreid"][0], runs["ours"][0])
        ms, memory = best(runs["torchreid"])
        for side in sides:
            own, held = best(runs[side])
            print(f"| {task} | {side} | {own:.0f} | {own / ms:.2f} | {held:.0f} | {held / memory:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchreid", type=Path, required=True, help="a clone of KaiyangZhou/deep-person-reid")
    for name, value in (("threads", 2), ("batch", 8), ("steps", 4), ("repeats", 3), ("height", 256), ("width", 128)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--measure", nargs=2, metavar=("ENGINE", "TASK"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not (given.torchreid / "torchreid/engine").is_dir():
        print(f"error: {str(given.torchreid)!r}: holds no torchreid/engine; give a clone of "
              "KaiyangZhou/deep-person-reid as --torchreid", file=sys.stderr)
        sys.exit(2)
    if given.measure:
        print(json.dumps(measure(given)))
    else:
        compare(given, child)


if __name__ == "__main__":
    main()
