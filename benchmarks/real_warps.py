"""Do a parser's u and v of real people look like DensePose's? python -m benchmarks.real_warps WEIGHTS --demo FOLDER

FOLDER is DensePose's own demonstration: demo_im.jpg with its IUV and its people (demo_im_INDS.png). Each of its people
of 800 pixels or more is cut out with a margin of a tenth and parsed, proportions kept, and compared pixel by pixel with
what DensePose says there: of a part's pixels the share that is the same part here, and on those mean |du| and |dv| (0
to 1) and the correlation of u and of v. Prints Markdown.

With `--images FOLDER --out FILE.png` also a sheet of 20 crops, spread evenly, to look at: the crop, its 24 parts in
colours, and its 24 DSAP images (32 x 32 texels, as the profiles warp; rows of 12, parts 1 to 12 above 13 to 24), grey
where nothing fell. Pictures of real people: keep the sheet to yourself. One thread, seconds.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.proportions import HEIGHT, WIDTH, own
from pipeline.base.body_parts import DENSEPOSE24, DENSEPOSE24_TO_PARTS8, SURFACE_PARTS
from pipeline.base.images import fit, nearest, read_image, write_image
from pipeline.base.spread import evenly
from pipeline.caches.warp import warp
from pipeline.inspection.contact_sheets import colours
from pipeline.parsing.engine import Forward
from pipeline.parsing.letterbox import letterbox, on_whole_images

LEAST_PIXELS, MARGIN = 800, 0.1
FEW = 100  # pixels; a part that both see on fewer has no row of its own
CROPS, TEXELS = 20, 32
TILE, EMPTY = 64, 90


def parsed(forward: Forward, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (H, W) of DensePose's 24 and u,v (H, W, 2) uint8 of an image (rows, columns, 3), on the whole of it."""
    seen, place = letterbox(image, HEIGHT, WIDTH)
    output = on_whole_images(forward(torch.from_numpy(seen).permute(2, 0, 1)[None], [""]), [place])
    return output["native"][0].numpy(), (output["uv"][0] * 255).round().to(torch.uint8).numpy()


def people(folder: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each person of the demonstration: the crop, DensePose's labels, 0 but on that person, and its u,v."""
    image = read_image(folder / "demo_im.jpg")
    iuv = cv2.imread(str(folder / "demo_im_IUV.png"))  # I, U, V in OpenCV's order
    instances = cv2.imread(str(folder / "demo_im_INDS.png"), cv2.IMREAD_GRAYSCALE)
    found = []
    for number in np.unique(instances[instances > 0]):
        mask = instances == number
        if mask.sum() < LEAST_PIXELS:
            continue
        box = []
        for axis in (1, 0):
            places = np.flatnonzero(mask.any(axis))
            margin = round(MARGIN * (places[-1] + 1 - places[0]))
            box.append(slice(max(places[0] - margin, 0), places[-1] + 1 + margin))
        crop = tuple(box)
        found.append((np.ascontiguousarray(image[crop]), np.where(mask, iuv[..., 0], 0)[crop], iuv[crop][..., 1:]))
    return found


def show_agreement(forward: Forward, folder: Path) -> None:
    rows = []
    demonstrated = people(folder)
    for image, theirs, uv in demonstrated:
        labels, ours = (nearest(maps, *image.shape[:2]) for maps in parsed(forward, image))
        body = theirs > 0
        rows.append(np.column_stack([theirs[body], labels[body], uv[body], ours[body]]).astype(np.int64))
    part, label, *coordinates = np.concatenate(rows).T
    same, alike = part == label, DENSEPOSE24_TO_PARTS8[part] == DENSEPOSE24_TO_PARTS8[label]

    print(f"{len(demonstrated)} people, {len(part):,} pixels of DensePose's; here {(label > 0).mean():.1%} of them are "
          f"a body's, {alike.mean():.1%} the same of the 8 parts and {same.mean():.1%} of the 24\n")
    print("| part | DensePose's pixels | the same part | mean abs. du | dv | correlation of u | of v |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    shown, correlations = 0, []
    for number in range(1, SURFACE_PARTS + 1):
        there = part == number
        both = there & same
        if both.sum() >= FEW:
            u, v, own_u, own_v = (values[both] / 255 for values in coordinates)
            correlations.append([both.sum(), np.corrcoef(u, own_u)[0, 1], np.corrcoef(v, own_v)[0, 1]])
            shown += 1
            print(f"| {number} {DENSEPOSE24[number]} | {there.sum():,} | {same[there].mean():.2f} | "
                  f"{np.abs(u - own_u).mean():.3f} | {np.abs(v - own_v).mean():.3f} | {correlations[-1][1]:.2f} | "
                  f"{correlations[-1][2]:.2f} |")
    u, v, own_u, own_v = (values[same] / 255 for values in coordinates)
    weights, *each = np.array(correlations).T
    means = " | ".join(f"{np.average(values, weights=weights):.2f}" for values in each)
    print(f"| all | {len(part):,} | {same.mean():.2f} | {np.abs(u - own_u).mean():.3f} | "
          f"{np.abs(v - own_v).mean():.3f} | {means} |")
    print(f"\nCorrelations of `all` are the {shown} parts' above, weighted by their common pixels; the other "
          f"{SURFACE_PARTS - shown} are common on fewer than {FEW}.")


def sheet(forward: Forward, files: list[Path]) -> np.ndarray:
    """(rows, columns, 3) uint8: of each file a row, as the head of this module has it."""
    rows = []
    for file in files:
        image = read_image(file)
        labels, uv = parsed(forward, image)
        dsap, valid = warp(fit(image, HEIGHT, WIDTH), labels, uv, texels=TEXELS)
        texels = np.where(valid[..., None] > 0, dsap, EMPTY).astype(np.uint8)
        tiles = [cv2.copyMakeBorder(nearest(tile, TILE - 2, TILE - 2), 1, 1, 1, 1, cv2.BORDER_CONSTANT,
                                    value=(255, 255, 255)) for tile in texels]
        half = SURFACE_PARTS // 2
        warped = np.concatenate([np.concatenate(tiles[first:first + half], 1) for first in (0, half)])
        seen = [fit(image, 2 * TILE, TILE), nearest(colours(labels, len(DENSEPOSE24)), 2 * TILE, TILE)]
        rows.append(np.concatenate([*seen, warped], 1))
        rows.append(np.full((8, rows[-1].shape[1], 3), 255, np.uint8))
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="of a parser with u,v that is trained here")
    parser.add_argument("--demo", type=Path, required=True, help="DensePose's demonstration")
    parser.add_argument("--images", type=Path, help="a folder of crops of people, for the sheet")
    parser.add_argument("--out", type=Path, help="the sheet, a .png")
    given = parser.parse_args()
    if (given.images is None) != (given.out is None):
        parser.error("--images and --out go together")

    torch.set_num_threads(1)
    forward = own(given.weights)
    show_agreement(forward, given.demo)
    if given.images is not None:
        files = sorted(path for path in given.images.rglob("*") if path.suffix in (".jpg", ".png"))
        chosen = evenly(len(files), CROPS)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_image(given.out, sheet(forward, [files[row] for row in chosen]))
        print(f"\n{given.out}: {', '.join(files[row].name for row in chosen)}")


if __name__ == "__main__":
    main()
