"""MATLAB's .mat files, read in a process of its own: scipy's reader crashes on some damaged ones."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any


def read_mat(path: str | os.PathLike, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The variables of a .mat file (MATLAB 4 to 7.2), or those of `names`. What `scipy.io.loadmat` raises, and
    ValueError where it dies."""
    import scipy.io  # here, before the fork: most stages read no such file, and it takes longer than pandas

    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()  # multiprocessing's own processes may not start another, and a DataLoader's workers read these
    if not child:
        try:
            _read(scipy.io.loadmat, os.fspath(path), names, sender)
        finally:
            os._exit(0)

    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = ValueError("scipy's reader crashed on it")
    except BaseException:  # Ctrl-C too
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        receiver.close()
        os.waitpid(child, 0)

    if isinstance(answer, Exception):
        raise answer
    return answer


def _read(loadmat: Callable[..., Any], path: str, names: Sequence[str] | None, sender: Connection) -> None:
    try:
        answer: Any = loadmat(path, variable_names=names, appendmat=False)
    except Exception as error:  # a damaged file makes loadmat raise almost anything
        answer = error if type(error).__module__ == "builtins" else ValueError(f"{type(error).__name__}: {error}")

    try:
        sender.send(answer)
    except Exception as error:  # what cannot be sent is no array
        sender.send(ValueError(f"holds what is no array ({type(error).__name__})"))
