"""Search of a folder of images for who looks like this one:

    python -m stages.tools.search query.jpg images/ sorn --top 10 --out found
    python -m stages.tools.search query.jpg images/ elsewhere/weights.safetensors --out found

Embeds the query and the folder's images with a trained run of an experiment, named by its key or by its weights, and
writes found/ranks.png and found/ranks.csv (position, image, distance), nearest first. One image is one person's crop.
The query's own file is left out if it lies in the folder, and so are files that are no images, which are said.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_bytes, write_text
from pipeline.base.images import read_image
from pipeline.config import paths
from pipeline.config.loader import Experiment, load_experiment, pick
from pipeline.datasets.index import legible
from pipeline.datasets.scan import image_files
from pipeline.loading.dataset import Images, ordered_batches
from pipeline.reporting.plots import ListedImage, rank_figure
from pipeline.retrieval.features import embed_images
from pipeline.retrieval.matching import Matching, Side
from pipeline.retrieval.ranking import nearest
from pipeline.training.checkpoints import read_weights
from stages import sentences
from stages.shared.device import choose_device
from stages.shared.trained_run import open_run


def run(experiment: Experiment, *, query: Path, gallery: Path, key: str, top: int, out: Path) -> pd.DataFrame:
    """Write OUT/ranks.png and OUT/ranks.csv; what the CSV holds."""
    for name in ("ranks.png", "ranks.csv"):
        writable(out / name)
    files = _readable(_files(query, gallery))
    features, visibility, matching = _embed(experiment, key, [query, *files])
    # Two different people to the engine, so that it removes no image as the query's own.
    people = Side(features, visibility, np.arange(len(features)), np.zeros(len(features), np.int64))
    rows, distances = nearest(people.take(slice(0, 1)), people.take(slice(1, None)), matching, min(top, len(files)))

    nearest_files = [files[row] for row in rows[0]]
    table = pd.DataFrame({"position": range(1, len(nearest_files) + 1), "image": [path.name for path in nearest_files],
                          "distance": [f"{distance:.6f}" for distance in distances[0]]})
    shown = [ListedImage(read_image(path), path.name, None) for path in (query, *nearest_files)]
    write_bytes(out / "ranks.png", rank_figure([(shown[0], shown[1:])]))
    write_text(out / "ranks.csv", table.to_csv(index=False, lineterminator="\n"))
    return table


def _files(query: Path, gallery: Path) -> list[Path]:
    if not gallery.is_dir():
        raise InputError(f"{str(gallery)!r}: no such folder; name the folder of images to search")
    read_image(query)
    names = image_files(gallery)
    for name in names:
        if not legible(name):
            print(f"{str(gallery / name)!r}: is left out, the name holds bytes that are no UTF-8 or a control "
                  "character; rename it to search it", file=sys.stderr)
    files = [gallery / name for name in names
             if legible(name) and not (query.exists() and query.samefile(gallery / name))]
    if not files:
        raise InputError(f"{str(gallery)!r}: holds no image to search; name a folder of .jpg or .png files")
    return files


def _readable(files: Sequence[Path]) -> list[Path]:
    """Those that can be decoded; the others are said. InputError if none can."""
    good = []
    for path in files:
        try:
            read_image(path)
            good.append(path)
        except InputError as error:
            print(f"left out of the search: {error}", file=sys.stderr)
            broken = error
    if not good:
        raise broken
    return good


def _embed(experiment: Experiment, key: str, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, Matching]:
    """Features (N, sum D_p), visibilities (N, P) of the images, and how the run's network compares them."""
    given = key.endswith(".safetensors")
    weights = Path(key) if given else paths.weights(key)
    key = str(read_weights(weights)[1].get("run")) if given else key
    trained, match = experiment.run(key), pick(experiment.params.results, key, "results").match
    if trained.model.cache_file(match.features) is not None:
        raise InputError(f"{key}: {trained.model.name} reads a cache at test time, which loose images have not, so it "
                         "cannot be searched this way; make a data set of them and run `dvc repro`, or search with "
                         "another run")

    device = choose_device(experiment.params.device, threads=experiment.params.threads)
    network = open_run(trained, key=key, weights=weights, match=match).network
    names = [str(path.absolute()) for path in files]
    frame = pd.DataFrame({"image": names, "path": names, "camid": 0, "target": np.int64(0)})
    images = Images(frame, raw="", cache=None, height=trained.height, width=trained.width)
    batches = ordered_batches(images, batch=trained.batch, workers=trained.workers, device=device)
    features, visibility = embed_images(network, batches, count=len(files), device=device)
    return features, visibility, Matching(network.sizes, network.distance, network.reduction,
                                          whole_body=getattr(network, "whole_body", None))


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", type=Path, help="the image to look for")
    parser.add_argument("gallery", type=Path, help="the folder to look in")
    parser.add_argument("run", help="a trained run of the experiment, such as sorn, or its weights")
    parser.add_argument("--top", type=_count, default=10, help="how many are listed (10)")
    parser.add_argument("--out", type=Path, required=True, help="the folder for ranks.png and ranks.csv")
    parser.add_argument("--experiment", default="default", metavar="NAME", help="whose run it is (default)")
    return parser.parse_args(words)


def _count(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} images cannot be listed; ask for 1 or more")
    return int(word)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(words)
    with sentences():
        table = run(load_experiment(arguments.experiment), query=arguments.query, gallery=arguments.gallery,
                    key=arguments.run, top=arguments.top, out=arguments.out)
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
