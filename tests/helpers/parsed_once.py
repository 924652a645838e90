"""DVC parses params.yaml anew for each stage, in Python: nine tenths of what `dvc status` takes on the tests' projects.

The same text is the same tree; `patched` gives DVC one that is parsed once in a process.
"""

import contextlib
import pickle
from collections.abc import Iterator
from typing import Any
from unittest import mock

from dvc.utils import strictyaml
from dvc.utils.serialize import _yaml

_plain, _seen = _yaml.parse_yaml, {}


def _parse(text: str, path: str, typ: str = "safe") -> Any:
    if typ != "safe":  # with comments and places, for writing
        return _plain(text, path, typ)
    if text not in _seen:
        _seen[text] = pickle.dumps(_plain(text, path))
    return pickle.loads(_seen[text])  # a tree of the caller's own


@contextlib.contextmanager
def patched() -> Iterator[None]:
    with mock.patch.object(_yaml, "parse_yaml", _parse), mock.patch.object(strictyaml, "parse_yaml", _parse):
        yield
