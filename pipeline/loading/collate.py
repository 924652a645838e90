"""Collating batches in loading processes, with bad files as their one sentence.

An error raised in a loading process arrives wrapped in that process's traceback. So data sets return an InputError in
place of the item, `collate` lets it stand for the batch, and `batches_or_error` raises it where the batch is used.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from pipeline.base.errors import InputError

Batch = dict[str, Tensor]


def collate(items: list[dict[str, Tensor] | InputError]) -> Batch | InputError:
    """Stack items into a batch; the first error among them stands for all."""
    for item in items:
        if isinstance(item, InputError):
            return item
    return default_collate(items)


def as_it_is(batch: Any) -> Any:
    """For a data set that loads whole batches."""
    return batch


def batches_or_error(loader: Iterable[Batch | InputError]) -> Iterator[Batch]:
    """The loader's batches. InputError where one holds a bad file."""
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch
