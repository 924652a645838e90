"""benchmarks/gpu.py without a GPU: its parts on the CPU, its verdicts, and what is kept when a part fails."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu, gpu_parts
from benchmarks.gpu_parts import PARTS, SMALL
from benchmarks.step_time import random_batch
from tests.helpers.networks import with_statistics

NAMES = ["network", "numbers", "features", "visibility", "loss", "next loss", "failure"]


def rows_of(part: str, monkeypatch, **changes) -> list[dict]:
    for name, value in changes.items():
        monkeypatch.setattr(gpu_parts, name, value)
    monkeypatch.setattr(gpu_parts, "LAYERS", gpu_parts.LAYERS[-1:])
    return json.loads(json.dumps(list(PARTS[part][0](SMALL, "cpu", 1.0))))


@pytest.mark.parametrize("recipe", gpu_parts.NETWORKS)
def test_every_network_has_what_it_reads_and_its_loss_moves_by_a_step(recipe):
    model = with_statistics(gpu_parts.built(recipe, SMALL))
    batch = random_batch(gpu_parts.options(SMALL, "cpu", recipe), SMALL.checked)
    features, visibility, loss, following = gpu_parts.outcome(model, batch, bfloat16=False)
    assert features.shape == (8, sum(model.sizes)) and visibility.shape == (8, len(model.sizes))
    assert features.isfinite().all() and 0 < abs(loss - following) < loss
    assert (features[0] != features[1]).any(), "two images have one feature"


def test_one_network_gives_on_the_same_device_the_same(monkeypatch):
    rows = rows_of("networks", monkeypatch, NUMBERS=("float32", "TF32"), NETWORKS=("baseline",))
    assert [row["numbers"] for row in rows] == ["float32", "TF32"]
    assert all(row["features"] == row["loss"] == row["next loss"] == 0 and list(row) == NAMES for row in rows), rows
    assert PARTS["networks"][2](rows) == []


def test_bfloat16_is_another_number_and_not_asked_to_be_the_same(monkeypatch):
    row, = rows_of("networks", monkeypatch, NUMBERS=("bfloat16",), NETWORKS=("baseline",))
    assert 1e-6 < row["features"] < 0.05 and 0 < row["loss"] < 0.05
    assert PARTS["networks"][2]([row | {"features": 1.0}]) == []


def test_a_network_that_is_another_on_the_device_falls_short(monkeypatch):
    def placed(model, device):
        with torch.no_grad():
            next(p for p in model.parameters() if p.ndim == 4)[0] += 0.1
        return model

    before, calls = gpu_parts.outcome, []

    def outcome(model, batch, **more):
        calls.append(1)
        with pytest.MonkeyPatch.context() as patch:
            if len(calls) == 2:  # after the CPU's: that in float32
                patch.setattr(gpu_parts, "placed", placed)
            return before(model, batch, **more)

    rows = rows_of("networks", monkeypatch, outcome=outcome, NETWORKS=("baseline",), NUMBERS=("float32",))
    short = PARTS["networks"][2](rows)
    assert [sentence.split(" differs")[0] for sentence in short] == [
        f"baseline in float32: {name}" for name in ("features", "loss", "next loss")]


def test_a_network_that_the_device_cannot_run_loses_no_other(monkeypatch):
    def outcome(model, batch, *, bfloat16):
        if bfloat16:
            raise RuntimeError("no kernel for bfloat16\nat line 1")
        return batch["image"].double(), torch.ones(8, 1), 1.0, 1.0

    rows = rows_of("networks", monkeypatch, outcome=outcome, NETWORKS=("baseline", "pcb"))
    assert [row["failure"] for row in rows] == ["", "", "no kernel for bfloat16"] * 2
    assert PARTS["networks"][2](rows) == [f"{name} in bfloat16: no kernel for bfloat16" for name in ("baseline", "pcb")]


def test_what_is_no_number_falls_short():
    row = dict.fromkeys(NAMES, float("nan")) | {"network": "sorn", "numbers": "TF32", "failure": ""}
    assert PARTS["networks"][2]([row]) == ["sorn in TF32: features differs by nan, and 1e-03 is asked"]
    assert PARTS["nccl"][2]([{"sent": "copies", "difference": float("nan")}])


@pytest.mark.parametrize(("part", "count"), [("layouts", 4), ("memory", 2), ("branches", 4)])
def test_a_part_measures_on_a_cpu(part, count, monkeypatch):
    rows = rows_of(part, monkeypatch, NETWORKS=("dsa",))
    assert len(rows) == count
    for row in rows:
        assert list(row) == list(rows[0])
        assert all(value > 0 for name, value in row.items() if isinstance(value, float)), row


def test_the_share_of_the_peak_is_that_of_the_flops(monkeypatch):
    rows = rows_of("throughput", monkeypatch)
    for row in rows:
        assert row["MFU"] == pytest.approx(row["images/s"] * row["GFLOP an image"] / 1000)
    # A ResNet-18 at 224 x 224 has 1.81 G multiply-adds, stride 1 in its last stage 0.41 * 3 more; three passes, but
    # the first layer's input needs no gradient.
    assert rows[0]["GFLOP an image"] == pytest.approx(6 * (1.81 + 3 * 0.41) * 96 * 32 / 224**2, rel=0.05)
    assert PARTS["throughput"][2](rows) == [f"MFU is {max(row['MFU'] for row in rows):.2f} at best, and 0.35 is asked"]
    assert PARTS["throughput"][2]([row | {"MFU": 0.36} for row in rows]) == []
    assert "--peak" in PARTS["throughput"][2]([row | {"MFU": None} for row in rows])[0]


def test_what_one_process_sends_comes_back(monkeypatch):
    rows = rows_of("nccl", monkeypatch)
    assert len(rows) == 5 and PARTS["nccl"][2](rows) == []
    monkeypatch.setattr(gpu_parts.distributed, "average_gradients", lambda parameters: None)
    assert [sentence.split(":")[0] for sentence in PARTS["nccl"][2](rows_of("nccl", monkeypatch))] == [
        "mean of gradients"]


def test_rows_of_a_part_that_fails_or_hangs_stay(tmp_path):
    path, program = tmp_path / "rows.jsonl", "import json, sys, time; print(json.dumps({'x': 1.5}), file=open(%r, 'w'))"
    for end, failure in (("raise ValueError('no kernel')", "ValueError: no kernel"),
                         ("time.sleep(60)", "stopped after 5 s"), ("sys.exit(3)", "exit status 3"), ("", "")):
        path.unlink(missing_ok=True)
        part = gpu.run_part([sys.executable, "-c", f"{program % str(path)}\n{end}"], path, 5)
        assert (part["rows"], part["failure"]) == ([{"x": 1.5}], failure)
    assert gpu.run_part([sys.executable, "-c", ""], tmp_path / "none", 5)["rows"] == []


def test_a_part_that_fails_loses_no_other(tmp_path, monkeypatch, capsys):
    def run_part(command, rows, seconds):
        failed = command[command.index("--only") + 1] == "layouts"
        return {"seconds": 1.0, "failure": "out of memory" if failed else "", "rows": [] if failed else [{"ms": 0.5}]}

    monkeypatch.setattr(gpu, "run_part", run_part)
    path = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--json", str(path), "--only", "layouts", "memory"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    found = json.loads(path.read_text())
    assert ended.value.code == 1 and found["machine"]["device"] == "cpu"
    assert {name: part["rows"] for name, part in found["parts"].items()} == {"layouts": [], "memory": [{"ms": 0.5}]}
    said = capsys.readouterr().out
    assert "**failed**: out of memory" in said and "| ms |\n|---|\n| 0.50 |" in said


def test_without_a_gpu_it_says_so_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == ("error: torch finds no GPU here; run it where there is one, or see the parts "
                                       "run with --device cpu --small\n")


@pytest.mark.parametrize(("name", "peak"), [
    ("NVIDIA H200", 989), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-80GB", 312),
    ("NVIDIA A10", 125), ("NVIDIA A10G", None), ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("Tesla T4", None)])
def test_the_peak_is_known_by_the_whole_name(name, peak):
    assert gpu.peak_of(name) == peak


def test_a_bare_machine_has_what_it_imports():
    """What torch, torchvision, timm, h5py and opencv bring along; PIL is torchvision's and tqdm optional in torch."""
    bare = {"torch", "torchvision", "torchgen", "numpy", "yaml", "safetensors", "PIL", "tqdm", "sympy", "mpmath",
            "typing_extensions"}
    program = ("import sys, benchmarks.gpu\n"
               "for name in ('pandas', 'scipy', 'dvc', 'dvclive', 'matplotlib', 'deflate', 'jinja2', 'tabulate'):\n"
               "    assert name not in sys.modules, name\n"
               "ours = {'benchmarks', 'models', 'pipeline', 'stages', 'tests'}\n"
               "print(*sorted({name.split('.')[0] for name, module in sys.modules.items()\n"
               "    if 'site-packages' in (getattr(module, '__file__', None) or '')} - ours))")
    done = subprocess.run([sys.executable, "-c", program], cwd=gpu.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    started = subprocess.run([sys.executable, "-c", "import sys; print(*{n.split('.')[0] for n in sys.modules})"],
                             capture_output=True, text=True).stdout.split()
    optional = {"colorama", "pydot", "pynvml"}  # torch takes them where they happen to be
    assert set(done.stdout.split()) <= bare | optional | set(started)
