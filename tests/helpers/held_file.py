"""Held file: another process that has an HDF5 file open."""

import subprocess
import sys
from pathlib import Path

HOLDS = """
import h5py, sys
with h5py.File(sys.argv[1], sys.argv[2], locking=sys.argv[3] == "locks"):
    print("open", flush=True)
    sys.stdin.read()
"""


def held(path: Path, mode: str, locks: str = "none") -> subprocess.Popen[str]:
    """It lets go when it is told by `communicate()`. mode: h5py's; locks: locks | none."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path), mode, locks], stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process
