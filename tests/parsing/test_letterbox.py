"""Images kept in their proportions: by a parser that reads colours, maps of whole images lie where those are."""

import numpy as np
import pytest
import torch

from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8
from pipeline.base.images import read_image, write_image
from pipeline.caches.cache import Cache
from pipeline.datasets.index import read_index
from pipeline.parsing.letterbox import letterbox, on_whole_images, place_of
from tests.helpers.parsed_set import make_job, parse, soft_forward
from tests.helpers.tiny_set import write_set

HEIGHT, WIDTH = 128, 64
LABELS = (0, 1, 5, 14, 15, 23)  # of DensePose-24, one a colour
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)], np.uint8)


def by_colour(images: torch.Tensor, paths: list[str]) -> dict[str, torch.Tensor]:
    """A parser that labels each pixel by the nearest colour; its u,v are the label's, so that they can be told."""
    assert images.shape == (4, 3, HEIGHT, WIDTH), "each forward pass has exactly the batch's rows"
    distances = (images[:, None].float() - torch.from_numpy(COLOURS).float()[None, :, :, None, None]).square().sum(2)
    native = torch.tensor(LABELS, dtype=torch.uint8)[distances.argmin(1)]
    parts = torch.tensor(DENSEPOSE24_TO_PARTS8.tolist())[native.long()]
    one_hot = torch.stack([parts == part for part in range(8)], 1).float()
    return {"native": native, "parts8": one_hot, "uv": torch.stack([native / 50, 1 - native / 50], -1)}


def blocks(height: int, width: int, seed: int) -> np.ndarray:
    """Which of the colours each pixel of an image has: 3 x 3 blocks of uneven sizes, none smaller than a sixth."""
    random = np.random.default_rng(seed)
    choice = random.integers(0, len(COLOURS), (3, 3))
    rows, columns = (np.searchsorted([size * cut for cut in sorted((random.uniform(.25, .4), random.uniform(.6, .75)))],
                                     np.arange(size)) for size in (height, width))
    return choice[rows][:, columns]


def expected(choice: np.ndarray, reach: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Naive: the label at each map pixel's middle (H, W), and whether an edge is farther than a pixel of what the
    parser saw of the image, `reach` of the map's rows and columns."""
    labels, sure = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), bool)
    height, width = choice.shape
    rows, columns = choice.shape[0] / HEIGHT, choice.shape[1] / WIDTH
    for y in range(HEIGHT):
        for x in range(WIDTH):
            top, bottom = (int((y + .5 + step) * rows) for step in (-reach[0], reach[0]))
            left, right = (int((x + .5 + step) * columns) for step in (-reach[1], reach[1]))
            around = choice[max(0, top):bottom + 1, max(0, left):right + 1]
            sure[y, x] = (around == around[0, 0]).all()
            labels[y, x] = LABELS[choice[int((y + .5) * rows), int((x + .5) * columns)]]
    return labels, sure


@pytest.fixture
def folder(tmp_path):
    """Images of several proportions: square, 1:3, 3:1, the parser's own, and one that is nearly that."""
    write_set(tmp_path, 6)
    sizes = [(150, 150), (300, 100), (90, 270), (256, 128), (128, 65), (128, 64)]
    choices = []
    for number, (path, size) in enumerate(zip(read_index(tmp_path / "index.csv")["path"], sizes, strict=True)):
        choices.append(blocks(*size, seed=number))
        write_image(tmp_path / "raw" / path.replace(".jpg", ".png"), COLOURS[choices[-1]])
    return tmp_path, choices


def run(root, name: str, forward=by_colour, **changes) -> Cache:
    paths = [path.replace(".jpg", ".png") for path in make_job(root).paths]
    parse(root, forward, name, paths=paths, height=HEIGHT, width=WIDTH, **changes)
    return Cache(root / name)


def test_maps_lie_on_the_whole_image_where_its_colours_are(folder):
    root, choices = folder
    cache = run(root, "parts.h5", fit="keep")
    for row, choice in enumerate(choices):
        top, left, bottom, right = place_of(*choice.shape, HEIGHT, WIDTH)
        labels, sure = expected(choice, (HEIGHT / (bottom - top), WIDTH / (right - left)))
        assert sure.mean() > 0.5 and len(set(labels[sure])) > 2
        native, uv = cache.read("native", row), cache.read("uv", row)
        np.testing.assert_array_equal(native[sure], labels[sure])
        steps = native * (255 / 50)
        np.testing.assert_allclose(uv[..., 0], steps, atol=0.51)  # of that very label, at edges too
        np.testing.assert_allclose(uv[..., 1], 255 - steps, atol=0.51)

        probabilities, parts = cache.read("probs/parts8", row), DENSEPOSE24_TO_PARTS8[labels]
        for y, x in np.ndindex(HEIGHT // 4, WIDTH // 4):
            cell = (slice(4 * y, 4 * y + 4), slice(4 * x, 4 * x + 4))
            if sure[cell].all() and len(set(parts[cell].flat)) == 1:
                assert probabilities[parts[4 * y, 4 * x], y, x] == 255


def test_an_image_of_the_parsers_proportions_gives_the_bytes_of_stretch(folder):
    root, _ = folder
    kept, stretched = (run(root, f"{how}.h5", soft_forward, fit=how) for how in ("keep", "stretch"))
    names = ("native", "uv", "labels", "probs/parts8", "probs/parts4", "entropy", "visibility")
    for row, alike in enumerate((False, False, False, True, False, True)):
        assert all(np.array_equal(kept.read(name, row), stretched.read(name, row)) for name in names) == alike, row
    assert set(kept.column("status")) == {"parsed"}, "interpolated probabilities still sum to one"

    boxes = [(0, 0, *size) for size in ((128, 64), (64, 32), (80, 40), (256, 128), (128, 64), (100, 50))]
    (root / "keep.h5").unlink(), (root / "stretch.h5").unlink()
    for how in ("keep", "stretch"):
        run(root, f"{how}.h5", soft_forward, fit=how, boxes=boxes)
    assert (root / "keep.h5").read_bytes() == (root / "stretch.h5").read_bytes()


def test_a_box_is_what_keeps_its_proportions(folder):
    """A crop of an image's middle gives the maps of a file that is that crop."""
    root, _ = folder
    boxes = [(10, 20, 140, 150), (0, 0, 300, 100), (5, 0, 85, 270), (0, 0, 60, 128), (0, 0, 128, 65), (3, 4, 53, 60)]
    crops = run(root, "crops.h5", soft_forward, fit="keep", boxes=boxes)
    for path, (top, left, bottom, right) in zip(make_job(root).paths, boxes, strict=True):
        path = root / "raw" / path.replace(".jpg", ".png")
        write_image(path, read_image(path)[top:bottom, left:right])
    whole = run(root, "parts.h5", soft_forward, fit="keep")
    for row in range(6):
        for name in ("native", "uv", "probs/parts8", "entropy"):
            np.testing.assert_array_equal(crops.read(name, row), whole.read(name, row))


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1), (3, 2), (200, 101), (127, 64)])
def test_the_edges_are_repeated_and_no_row_is_nobodys(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    seen, (top, left, bottom, right) = letterbox(image, HEIGHT, WIDTH)
    assert seen.shape == (HEIGHT, WIDTH, 3) and bottom > top and right > left
    assert abs((right - left) - (bottom - top) * size[1] / size[0]) <= max(1, size[1] / size[0])
    assert (bottom - top == HEIGHT or right - left == WIDTH) and abs(top - (HEIGHT - bottom)) <= 1
    assert (seen[:top] == seen[top]).all() and (seen[bottom:] == seen[bottom - 1]).all()
    assert (seen[:, :left] == seen[:, left:left + 1]).all() and (seen[:, right:] == seen[:, right - 1:right]).all()


def test_maps_of_whole_images_are_not_touched():
    output = soft_forward(torch.randint(0, 256, (2, 3, 8, 4), dtype=torch.uint8), [])
    assert on_whole_images(output, [(0, 0, 8, 4)] * 2) is output
    moved = on_whole_images(output, [(0, 0, 8, 4), (2, 0, 6, 4)])
    assert all(torch.equal(moved[name][0], output[name][0]) for name in output)
    assert torch.equal(moved["native"][1], output["native"][1, [2, 2, 3, 3, 4, 4, 5, 5]])
    torch.testing.assert_close(moved["parts8"].sum(1), torch.ones(2, 8, 4))
