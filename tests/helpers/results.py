"""Results on disk, as `evaluate` leaves them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_result(folder: Path, sections: Mapping[str, Mapping[str, Any]], provenance: Mapping[str, Any]) -> None:
    """A result's folder: DATASET.json for each section, which holds metrics and `details`."""
    folder.mkdir(parents=True, exist_ok=True)
    for dataset, metrics in sections.items():
        text = json.dumps({**metrics, "provenance": [dict(provenance)]})
        (folder / f"{dataset}.json").write_text(text, encoding="utf-8")
