"""Where a stage computes, and in which numbers."""

import os
import sys

import torch

from pipeline.base.errors import InputError
from pipeline.base.processors import processors


def choose_device(wanted: str, *, threads: int) -> torch.device:
    """auto | cpu | cuda -> this process's device, which computes the same twice (on CUDA as far as its kernels can).

    threads: CPU threads, as many as asked for even where they are more than the processors that may be used, which
    is said on standard error: results depend on their number. InputError for another name, and for cuda where there
    is none.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: unknown device {wanted!r}; it is auto, cpu or cuda")
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InputError("device: is cuda, and torch finds no GPU here; write auto or cpu")
    name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if available and wanted != "cpu" else "cpu"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    if name == "cpu" and threads > (most := processors()):
        print(f"threads is {threads}, and this process may use {most} processor{'s' * (most > 1)}: they take turns, "
              "which is slower than as many threads as processors; kept, for the last digits depend on it",
              file=sys.stderr)
    # The same as torch.use_deterministic_algorithms, which imports the compiler to tell it, too.
    torch.set_deterministic_debug_mode("error" if name == "cpu" else "warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # all is written first
    return torch.device(name)


def choose_precision(wanted: str, device: torch.device) -> str:
    """auto | float32 -> the numbers of training's forward passes: bfloat16 where the device multiplies it natively.

    That is a GPU that can, or a CPU with AMX, where a ResNet-18's step takes about half as long; bfloat16's range needs
    no gradient scaling. InputError for another name.
    """
    if wanted not in ("auto", "float32"):
        raise InputError(f"precision: unknown precision {wanted!r}; it is auto or float32")
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # the environment can rule out AVX-512 and with it AMX
        native = (torch.cpu.get_capabilities().get("amx_bf16", False)
                  and torch.backends.cpu.get_cpu_capability() == "AVX512")
    return "bfloat16" if native and wanted == "auto" else "float32"


def machine(device: torch.device) -> str:
    """What computes: another kind of machine may give other last bits."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
