"""Two trainings at once over one alone, on the same processors: python -m benchmarks.two_trainings

Each training is a process of its own that does `--steps` steps (forward, backward, optimiser) of a network on random
numbers, `--threads` threads each. One alone and `--together` at once take turns, `--rounds` times; the time is the
slowest process's from the common start to its end. Fair sharing of fully used processors makes two at once cost 2.0.
What more they cost is threads that wait for one another: `--spins` compares how long they look for work before they
sleep (GOMP_SPINCOUNT; `stages` is what the stages take, 300000 libgomp's own). "processor time" is that of all
processes over the one's alone, per training: 1.0 where nothing is wasted. On a machine with other work one alone is not
alone: compare "at once" between the rows, `nice -n -15` (as root) before it all. About a minute for each of `--spins`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from stages import SPINS  # and with it what they set, before torch is imported

ROW = "| {spins} | {alone:.1f} | {together:.1f} | {ratio:.2f} ({low:.2f} to {high:.2f}) | {used:.2f} |"


def train(options: argparse.Namespace) -> None:
    """One training: says that it is ready, waits for a line, does its steps and prints wall and processor seconds."""
    import torch

    from benchmarks.step_time import networks, random_batch, step_of
    from pipeline.training.loop import make_optimizer

    torch.set_num_threads(options.threads)
    network = networks(options)[options.network]
    batch = random_batch(options, options.batch)
    optimizer = make_optimizer([], list(network.parameters()), name="adam", weight_decay=0.0, pretrained_lr_factor=1.0)
    backward = step_of(network, batch)
    for step in range(options.steps + 2):
        if step == 2:  # the first ones choose kernels
            print("ready", flush=True)
            sys.stdin.readline()
            wall, used = time.perf_counter(), time.process_time()
        backward()
        optimizer.step()
    print(time.perf_counter() - wall, time.process_time() - used, flush=True)


def run_together(count: int, environment: dict[str, str]) -> tuple[float, float]:
    """`count` trainings from a common start: the slowest one's wall seconds, all their processor seconds."""
    command = [sys.executable, "-m", "benchmarks.two_trainings", "--child", *sys.argv[1:]]
    children = [subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(count)]
    for child in children:
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            raise SystemExit("a training did not start")
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    seconds = [[float(word) for word in child.communicate()[0].split()] for child in children]
    return max(wall for wall, _ in seconds), sum(used for _, used in seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="baseline", help="one of benchmarks.step_time's table")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=768, help="SORN's N c'")
    parser.add_argument("--dsag-width", type=float, default=0.25)
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--together", type=int, default=2)
    parser.add_argument("--spins", nargs="+", default=["stages", "300000", "0"])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        train(options)
        return

    print(f"{options.network}, {options.backbone}, {options.height} x {options.width}, batch {options.batch}, "
          f"{options.threads} threads each on {len(os.sched_getaffinity(0))} processors; "
          f"the stages' GOMP_SPINCOUNT is {SPINS}\n")
    print(f"| GOMP_SPINCOUNT | alone, s | {options.together} at once, s | ratio (of rounds) | processor time |")
    print("|---|---|---|---|---|")
    for spins in options.spins:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        if spins != "stages":
            environment["GOMP_SPINCOUNT"] = spins
        alone, together = zip(*((run_together(1, environment), run_together(options.together, environment))
                                for _ in range(options.rounds)), strict=True)
        ratios = [many / one for (many, _), (one, _) in zip(together, alone, strict=True)]
        used = [many / one / options.together for (_, many), (_, one) in zip(together, alone, strict=True)]
        print(ROW.format(spins=spins, alone=statistics.median(one for one, _ in alone),
                               together=statistics.median(many for many, _ in together), low=min(ratios),
                               high=max(ratios), ratio=statistics.median(ratios), used=statistics.median(used)),
              flush=True)


if __name__ == "__main__":
    main()
