"""Unpickling of model-zoo .pkl files without running them: numpy arrays and plain containers only.

A pickle is a program that may call anything it can name. Here it can name the few things below, all of them stand-ins
of this file that only take notes; arrays are made afterwards, from notes that make sense. The unpickler is Python's own
one written in Python: in the one in C a file can claim a memo of 2^32 entries and gets its memory.
"""

import io
import math
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class _Mapping(dict):
    """Stands for OrderedDict. What a state dict notes beside its entries is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Dtype:
    """Stands for numpy.dtype: of plain numbers only."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", code):
            raise pickle.UnpicklingError(f"an array of {code!r:.40}")
        self.code = code.lstrip("<>|=")
        self.order = code[0] if code[0] in "<>" else "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def array(self, data: Any, shape: Any, order: str) -> np.ndarray:
        """Bytes -> an array; whatever does not fit raises."""
        data = data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError("an array without a shape")

        dtype = np.dtype(self.order + self.code)
        if math.prod(shape) * dtype.itemsize != len(data):
            raise pickle.UnpicklingError(f"an array {shape} of {len(data)} bytes")

        array = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
        return array.astype(dtype.newbyteorder("="))


class _Array:
    """Stands for numpy.ndarray, and for numpy's function that makes an empty one."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _as_dtype(dtype).array(data, shape, "F" if fortran else "C")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _as_dtype(dtype).array(data, shape, order)
    return array


def _scalar(dtype: Any, data: Any) -> _Array:
    return _frombuffer(data, dtype, (), "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stands for _codecs.encode, with which protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise pickle.UnpicklingError(f"text encoded as {encoding!r:.40}")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """Stands for bytes, which older protocols call to write the empty ones."""
    if arguments:
        raise pickle.UnpicklingError("bytes of something")
    return b""


def _as_dtype(dtype: Any) -> _Dtype:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array without a type")
    return dtype


_KNOWN: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): _Mapping, ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype,
    **{(module, name): stand_in for module in ("builtins", "__builtin__")
       for name, stand_in in (("bytes", _no_bytes), ("set", set), ("frozenset", frozenset))},
    **{(f"numpy.{core}.{module}", name): stand_in for core in ("core", "_core")
       for module, name, stand_in in (("multiarray", "_reconstruct", _Array), ("multiarray", "scalar", _scalar),
                                      ("numeric", "_frombuffer", _frombuffer))}}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    def find_class(self, module: str, name: str) -> Callable:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def read_pickle(path: str | os.PathLike) -> Any:
    """Dicts, lists, tuples, sets, text, bytes, numbers and numpy arrays of numbers.

    ValueError names the file, what it asks for beyond that, and the remedy.
    """
    name = os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror}); name the weights' file") from error

    try:
        return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load(), {})
    except Exception as error:  # a damaged or malicious pickle can raise anything
        raise ValueError(f"{name}: is refused: it is damaged or holds more than numpy arrays and plain containers "
                         f"({type(error).__name__}: {str(error)[:120]!r}); name a file of the model zoo, or a .pth of "
                         "the weights alone") from error


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """Notes to arrays, through all containers; anything else is refused. known: what was done already, by id: a list
    that holds another twice, that another twice, and so on, would take for ever, one that holds itself too."""
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without content")
        return value.value

    if isinstance(value, dict | list | tuple | set | frozenset):
        if id(value) not in known:
            known[id(value)] = _LOOP
            known[id(value)] = _container(value, known)
        if known[id(value)] is _LOOP:
            raise pickle.UnpicklingError("a container in itself")
        return known[id(value)]

    if value is None or isinstance(value, bool | int | float | complex | str | bytes | bytearray):
        return value
    raise pickle.UnpicklingError(f"{type(value).__name__}")


_LOOP = object()


def _container(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, dict):
        return {_plain(key, known): _plain(item, known) for key, item in value.items()}
    return type(value)(_plain(item, known) for item in value)
