"""Market-1501's training part split anew by identity, as the experiments on real people have it: `market1501_dev`.

    python -m stages.tools.split_market data/raw/market1501/bounding_box_train data/raw/market1501_dev

Of its 751 people 500, drawn under a fixed seed, are for training and 251 for testing: of each of these one picture a
camera is a query and the others gallery, but whoever has one picture a camera is gallery alone. The official test part
is left for the end. Writes links into the layout `market`: 8,655 training pictures, 1,101 queries, 3,180 gallery ones.
"""

import argparse
import os
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.base.files import new_folder, writable
from pipeline.datasets.market_like import MARKET_FOLDERS, market_name
from stages import sentences

SEED, TRAIN = 1501, 500  # people
PARTS = tuple(MARKET_FOLDERS)
PUBLISHED = (12936, 751)  # pictures and people


def run(source: Path, target: Path) -> dict[str, int]:
    """How many pictures went into each part. InputError where the folder has too few people, or the target is there."""
    writable(target, folder=True)
    if target.is_dir():
        raise InputError(f"{str(target)!r}: is there already; name a folder that is not, or remove it")
    names = [file.name for file in source.glob("*.jpg")]
    parts = split(names)
    if not parts["query"]:
        raise InputError(f"{str(source)!r}: has no more than {TRAIN} people in pictures such as "
                         "0002_c1s1_000451_03.jpg; name Market-1501's bounding_box_train")
    if (found := (len(names), len({market_name(Path(name))[0] for name in names}))) != PUBLISHED:
        print(f"{str(source)!r}: has {found[0]} pictures of {found[1]} people, Market-1501's training part "
              f"{PUBLISHED[0]} of {PUBLISHED[1]}: it is another split than that of the results here", file=sys.stderr)

    with new_folder(target) as folder:
        for part, names in parts.items():
            (folder / part).mkdir()
            for name in names:
                (folder / part / name).symlink_to(os.path.realpath(source / name))
    return {part: len(names) for part, names in parts.items()}


def split(names: Sequence[str]) -> dict[str, list[str]]:
    """File names of Market-1501's -> those of each part, sorted; junk and distractors (-1, 0) are left out. InputError
    for a name that is none."""
    of_person: dict[int, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted(names):
        person, camera = market_name(Path(name))
        if person > 0:
            of_person[person][camera].append(name)

    people, draw = sorted(of_person), random.Random(SEED)
    draw.shuffle(people)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    parts["bounding_box_train"] = sorted(name for person in people[:TRAIN] for pictures in of_person[person].values()
                                         for name in pictures)
    for person in sorted(people[TRAIN:]):
        cameras = of_person[person]
        pictures = [name for camera in sorted(cameras) for name in cameras[camera]]
        several = len(cameras) < len(pictures)
        queries = {draw.choice(cameras[camera]) for camera in sorted(cameras)} if several else set()
        for name in sorted(pictures):
            parts["query" if name in queries else "bounding_box_test"].append(name)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.split_market",
                                     description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="Market-1501's bounding_box_train")
    parser.add_argument("target", type=Path, help="the folder to be made")
    arguments = parser.parse_args()
    with sentences():
        made = run(arguments.source, arguments.target)
        print(f"{arguments.target}: " + ", ".join(f"{part} {count}" for part, count in made.items()))


if __name__ == "__main__":
    main()
