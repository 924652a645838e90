"""Progress of a long stage: a bar on a terminal, elsewhere a plain line every 30 s."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS = 30  # between two lines where there is no terminal; what is done sooner writes none
LINE = "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left{postfix}"


class _Lines(tqdm):
    """tqdm for a log file, a pipe or CI: whole lines with the time of day, no carriage returns, nothing at the end."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if msg != "":  # what tqdm clears a bar with
            print(f"{time.strftime('%H:%M:%S')} {msg or self}", file=self.fp, flush=True)
        return False  # nothing is on the screen that would have to be cleared


def progress(items: Iterable[Any] | None = None, what: str = "", *, unit: str, total: int | None = None,
             done: int = 0, shown: bool = True) -> tqdm:
    """tqdm over `items`, or to be told of what is done by `update` in a `with`, on standard error.

    what, unit ("images"): shown; total: of items that have no length, or of updates; done: so many were before; shown:
    False says nothing. A bar within another's time vanishes when it ends. Without a terminal a line follows the first
    item that ends 30 s after the line before it, or after the start.
    """
    common: dict[str, Any] = {"total": total, "initial": done, "unit": f" {unit}", "leave": None, "disable": not shown}
    if sys.stderr.isatty():
        return tqdm(items, what, dynamic_ncols=True, delay=1, **common)
    return _Lines(items, what, **common | {"leave": False}, mininterval=SECONDS, maxinterval=SECONDS, miniters=1,
                  delay=SECONDS, bar_format=LINE)
