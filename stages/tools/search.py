"""Search of a folder of images, and of the folders below it, for who looks like this one:

    python -m stages.tools.search query.jpg images/ sorn --top 10 --out found
    python -m stages.tools.search query.jpg images/ elsewhere/weights.safetensors --out found

Embeds the query and the folder's images with a trained run, named by its key in an experiment or by its weights'
file, which needs nothing beside it, and writes found/ranks.png and found/ranks.csv (position, image, distance),
nearest first. One image is one person's crop. A network that reads masks at test time has the images parsed first, by
the parser of its training (data/parsers) or by `--parser FILE`. The query's own file is left out if it lies in the
folder, and so are files that are no images, which are said.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import writable, write_bytes, write_text
from pipeline.base.images import read_image
from pipeline.config.loader import load_experiment
from pipeline.datasets.index import legible
from pipeline.datasets.scan import image_files, subfolders
from pipeline.reporting.plots import ListedImage, rank_figure
from pipeline.retrieval.matching import Side
from pipeline.retrieval.ranking import nearest
from stages import sentences
from stages.shared.embedder import Embedder, named_by_file, open_embedder


def run(embedder: Embedder, *, query: Path, gallery: Path, top: int, out: Path) -> pd.DataFrame:
    """Write OUT/ranks.png and OUT/ranks.csv, say how many images were searched; what the CSV holds."""
    names = _readable(gallery, _names(query, gallery))
    folders = len({name.parent for name in names})
    print(f"{len(names)} image{'s' * (len(names) > 1)} in {folders} folder{'s' * (folders > 1)}")

    files = [gallery / name for name in names]
    found = embedder.embed([query, *files])
    # Two different people to the engine, so that it removes no image as the query's own.
    people = Side(found.features, found.visibility, np.arange(len(files) + 1), np.zeros(len(files) + 1, np.int64))
    rows, distances = nearest(people.take(slice(0, 1)), people.take(slice(1, None)), embedder.matching,
                              min(top, len(files)))

    listed = [names[row] for row in rows[0]]
    table = pd.DataFrame({"position": range(1, len(listed) + 1), "image": [str(name) for name in listed],
                          "distance": [f"{distance:.6f}" for distance in distances[0]]})
    shown = [ListedImage(read_image(path), path.name, None) for path in (query, *(gallery / name for name in listed))]
    write_bytes(out / "ranks.png", rank_figure([(shown[0], shown[1:])]))
    write_text(out / "ranks.csv", table.to_csv(index=False, lineterminator="\n"))
    return table


def _names(query: Path, gallery: Path) -> list[PurePosixPath]:
    """The images below the folder, relative to it, sorted, without the query's file."""
    if not gallery.is_dir():
        raise InputError(f"{str(gallery)!r}: no such folder; name the folder of images to search")
    read_image(query)
    names = []
    for place in _places(gallery):
        for name in (place / name for name in image_files(gallery / place)):
            if not legible(str(name)):
                print(f"{str(gallery / name)!r}: is left out, the name holds bytes that are no UTF-8 or a control "
                      "character; rename it to search it", file=sys.stderr)
            elif not _same(query, gallery / name):
                names.append(name)
    if not names:
        raise InputError(f"{str(gallery)!r}: holds no image to search, nor do the folders in it; name a folder of "
                         ".jpg or .png files")
    return sorted(names)


def _same(one: Path, other: Path) -> bool:
    """Whether both are one file. A link to nothing is no file: `_readable` says it."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _places(gallery: Path) -> Iterator[PurePosixPath]:
    """The folder itself and all below it, relative to it; links are followed, but for those into what they lie in."""
    waiting = [(PurePosixPath(), frozenset([gallery.resolve()]))]
    while waiting:
        place, above = waiting.pop()
        yield place
        for lower in subfolders(gallery / place):
            if (real := lower.resolve()) not in above:
                waiting.append((place / lower.name, above | {real}))


def _readable(gallery: Path, names: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """Those that can be decoded; the others are said. InputError if none can."""
    good = []
    for name in names:
        try:
            read_image(gallery / name)
            good.append(name)
        except InputError as error:
            print(f"left out of the search: {error}", file=sys.stderr)
            broken = error
    if not good:
        raise broken
    return good


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", type=Path, help="the image to look for")
    parser.add_argument("gallery", type=Path, help="the folder to look in, with those below it")
    parser.add_argument("run", help="a trained run of the experiment, such as sorn, or a file of weights")
    parser.add_argument("--top", type=_count, default=10, help="how many are listed (10)")
    parser.add_argument("--out", type=Path, required=True, help="the folder for ranks.png and ranks.csv")
    parser.add_argument("--experiment", default="default", metavar="NAME", help="whose run it is (default)")
    parser.add_argument("--features", default="", help="what is matched, such as z of DSA (as the experiment's result)")
    parser.add_argument("--parser", type=Path, metavar="FILE", help="weights of the parser, where the network reads "
                        "masks at test time (that of its training, in data/parsers)")
    return parser.parse_args(words)


def _count(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} images cannot be listed; ask for 1 or more")
    return int(word)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(words)
    with sentences():
        for name in ("ranks.png", "ranks.csv"):
            writable(arguments.out / name)
        experiment = None if named_by_file(arguments.run) else load_experiment(arguments.experiment)
        embedder = open_embedder(arguments.run, experiment=experiment, features=arguments.features,
                                 parser=arguments.parser)
        table = run(embedder, query=arguments.query, gallery=arguments.gallery, top=arguments.top, out=arguments.out)
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
