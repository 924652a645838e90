"""Who in a folder of pictures looks like this one:
python -m stages.search query.jpg pictures/ default-sorn --top 10 --out found
python -m stages.search query.jpg pictures/ elsewhere/weights.safetensors --out found

Embeds the query and the folder's pictures with a trained run of params.yaml, named by its key or by its checkpoint, and
writes found/ranks.png and
found/ranks.csv (position, image, distance), nearest first. One picture is one person's crop. The query's own file is
left out if it lies in the folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.embedding import embed_images
from pipeline.errors import InputError
from pipeline.figures import Shown, rank_figure
from pipeline.folders import image_names
from pipeline.images import read_image
from pipeline.loading import Pictures, ordered_batches
from pipeline.params import EmbedParams, Params, pick
from pipeline.params_file import load_params
from pipeline.retrieval import Matching, Side, nearest
from pipeline.weights import load_weights, read_weights
from stages.device import choose_device
from stages.networks import build, cache_of, check_recorded


def run(params: Params, *, query: Path, gallery: Path, key: str, top: int, out: Path) -> pd.DataFrame:
    """Write OUT/ranks.png and OUT/ranks.csv; what the CSV holds."""
    pictures = _pictures(query, gallery)
    features, visibility, matching = _embed(params, key, [query, *pictures])
    # Two different people to the engine, so that it removes no picture as the query's own.
    people = Side(features, visibility, np.arange(len(features)), np.zeros(len(features), np.int64))
    rows, distances = nearest(people.take(slice(0, 1)), people.take(slice(1, None)), matching,
                              min(top, len(pictures)))
    found = [pictures[row] for row in rows[0]]
    table = pd.DataFrame({"position": range(1, len(found) + 1), "image": [path.name for path in found],
                          "distance": [f"{distance:.6f}" for distance in distances[0]]})
    out.mkdir(parents=True, exist_ok=True)
    shown = [Shown(read_image(path), path.name, None) for path in (query, *found)]
    _write(out / "ranks.png", rank_figure([(shown[0], shown[1:])]))
    _write(out / "ranks.csv", table.to_csv(index=False, lineterminator="\n").encode())
    return table


def _pictures(query: Path, gallery: Path) -> list[Path]:
    if not gallery.is_dir():
        raise InputError(f"{str(gallery)!r}: no such folder; name the folder of pictures to search")
    read_image(query)
    found = [gallery / name for name in image_names(gallery) if not (query.exists() and query.samefile(gallery / name))]
    if not found:
        raise InputError(f"{str(gallery)!r}: holds no picture to search; name a folder of .jpg or .png files")
    return found


def _embed(params: Params, key: str, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, Matching]:
    """Features (N, sum D_p), visibilities (N, P) of the pictures, and how the run's network compares them."""
    given = key.endswith(".safetensors")
    weights = Path(key) if given else Path("runs") / key / "weights.safetensors"
    key = str(read_weights(weights)[1].get("run")) if given else key
    trained = pick(params.runs, key, "runs")
    settings = _settings(params, key)
    device = choose_device(params.device, threads=params.threads)
    tensors, about = read_weights(weights)
    check_recorded(about, trained, key=key, path=weights)
    network: Any = build(trained, key=key, ids=about["ids"], match=settings.match)
    load_weights(network, tensors, weights)
    names = [str(path.absolute()) for path in paths]
    frame = pd.DataFrame({"image": names, "path": names, "camid": 0, "target": np.int64(0)})
    loaded = Pictures(frame, raw="", cache=None, height=trained.height, width=trained.width)
    batches = ordered_batches(loaded, batch=settings.batch, workers=trained.workers, device=device)
    features, visibility = embed_images(network, batches, count=len(paths), device=device)
    return features, visibility, Matching(network.sizes, network.distance, network.reduction)


def _settings(params: Params, key: str) -> EmbedParams:
    """How the run is matched: its first entry of `embed` that needs nothing but pictures."""
    entries = [entry for entry in params.embed.values() if entry.run == key]
    plain = [entry for entry in entries if cache_of(entry.reads) is None]
    if not entries:
        raise InputError(f"{key}: no entry of `embed` says how this run is matched; give it a data set in eval_on")
    if not plain:
        raise InputError(f"{key}: {entries[0].model} reads a cache at test time ({entries[0].reads!r}), which loose "
                         "pictures have not, so it cannot be searched this way; make a data set of them and run "
                         "`dvc repro`, or search with another run")
    return plain[0]


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", type=Path, help="the picture to look for")
    parser.add_argument("gallery", type=Path, help="the folder to look in")
    parser.add_argument("run", help="a trained run of params.yaml, such as default-sorn, or its checkpoint")
    parser.add_argument("--top", type=_count, default=10, help="how many are listed (10)")
    parser.add_argument("--out", type=Path, required=True, help="the folder for ranks.png and ranks.csv")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the parameter file")
    return parser.parse_args(words)


def _count(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} pictures cannot be listed; ask for 1 or more")
    return int(word)


def main(words: Sequence[str] | None = None) -> None:
    given = parse_arguments(words)
    try:
        table = run(load_params(given.params), query=given.query, gallery=given.gallery, key=given.run, top=given.top,
                    out=given.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
