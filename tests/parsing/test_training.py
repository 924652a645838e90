"""Training of parsers on a stand-in for the rendered set: flat figures of head, torso, arms and legs."""

import functools
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from models.parsers.torchvision_parsers import build_parser, load_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, LIP20_FLIP, PARTS8
from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.parsing.augmentation import PAD, erase, flip, hide, move, vary
from pipeline.parsing.rendered_set import ParsingSet, Shuffled, label_shares
from pipeline.parsing.training import (
    Objective,
    at_cells,
    evaluate,
    learning_rate,
    make_optimizer,
    parts_loss,
    rarity_weights,
    training_batches,
    uv_loss,
)
from pipeline.training.loop import fit
from stages.shared.parser_training import sgam_optimizer, sums
from tests.helpers.bare_params import bare_experiment
from tests.helpers.plain_resize import plain_resize

HEIGHT, WIDTH = 64, 32
# (DensePose id of the person's right limb, of the left one), rows, columns right of the middle that it fills
LIMBS = (((16, 15), (18, 28), (6, 11)), ((20, 19), (28, 36), (6, 11)), ((3, 4), (36, 41), (6, 11)),
         ((9, 10), (34, 46), (1, 7)), ((13, 14), (46, 56), (1, 7)), ((6, 5), (56, 61), (1, 8)))
COLOURS = np.random.default_rng(5).integers(30, 256, (25, 3), dtype=np.uint8)
COLOURS[0] = 0


def figure(*, shift: int = 0, raised: int = 0, mirrored: bool = False):
    """A figure seen from the front, its right limbs on the picture's left, or the mirror image: the same figure
    mirrored, whose left hand is where the right one was. `raised` moves one arm, so that sides differ."""
    middle = WIDTH // 2 + (-shift if mirrored else shift)
    labels, uv = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH, 2), np.uint8)
    across = np.arange(WIDTH) - middle + 0.5  # of the pixel centres

    def paint(part, rows, columns, u, v):
        block = np.ix_(np.arange(*rows), columns)
        labels[block], uv[(*block, 0)], uv[(*block, 1)] = part, u, v

    for side in (-1, 1):
        columns = np.flatnonzero((side * across > 0) & (np.abs(across) < 5))
        paint(23 if side < 0 else 24, (4, 16), columns, np.round((across[columns] + 5) / 10 * 255), 100)
        for pair, (top, bottom), (inner, outer) in LIMBS:
            columns = np.flatnonzero((side * across > inner) & (side * across < outer))
            up = raised if (top < 40 and inner == 6 and side == (1 if mirrored else -1)) else 0
            along = np.arange(bottom - top)[:, None] * 20
            if pair[side > 0] in (4, 5):  # DensePose's left hand and left foot run against the right ones
                along = 255 - along
            paint(pair[side > 0], (top - up, bottom - up), columns, along, np.abs(across[columns]) * 16)
    columns = np.flatnonzero(np.abs(across) < 6)
    paint(2, (16, 34), columns, 50, np.round((across[columns] + 6) / 12 * 255))
    return COLOURS[labels], labels, uv


def write_set(folder: Path, *, train: int, val: int) -> Path:
    generator = np.random.default_rng(0)
    rows = []
    for part, count in (("train", train), ("val", val)):
        (folder / part).mkdir(parents=True)
        for number in range(count):
            image, labels, uv = figure(shift=int(generator.integers(-5, 6)), raised=int(generator.integers(0, 10)))
            write_image(folder / part / f"{number:05d}.png", image)
            rows.append((f"{part}/{number:05d}.png", labels, uv))
    with h5py.File(folder / "labels.h5", "w") as file:
        paths, labels, uv = zip(*rows, strict=True)
        file["path"] = np.array(paths, dtype=h5py.string_dtype())
        file["index"], file["uv"] = np.stack(labels), np.stack(uv)
        file["occlusion"] = np.arange(len(rows)) % 2 * np.float32(0.2)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "default-parsing", train=8, val=5)


def pictures_of(folder, part="train"):
    return ParsingSet(folder, part, taxonomy="densepose24", uv=True, height=HEIGHT, width=WIDTH)


def new_parser():
    torch.manual_seed(0)
    return build_parser(architecture="lraspp", taxonomy="densepose24", uv=True, height=HEIGHT, width=WIDTH,
                        to_parts8=sums(DENSEPOSE24_TO_PARTS8, 8), to_parts4=torch.ones(5, 25) / 5)


def trained(folder, scratch, *, steps=4, batch=4, lr=1e-3, augment="all", stop_at=None, **more):
    """A parser trained by `fit`; with `stop_at`, interrupted before that step."""
    pictures = pictures_of(folder)
    parser = new_parser()

    def batches(start):
        for step, content in enumerate(training_batches(pictures, seed=0, batch=batch, start=start, stop=steps,
                                                        workers=0, augment=augment), start):
            if step == stop_at:
                raise KeyboardInterrupt
            yield content

    fit(Objective(parser, shares=label_shares(pictures)), make_optimizer(parser), steps=steps,
        batches=batches, batch_size=batch, rate=functools.partial(learning_rate, lr=lr), seed=0, scratch=scratch,
        device=torch.device("cpu"), precision="float32", live=scratch / "live", keys=pictures.paths, **more)
    return parser


def test_a_flip_is_the_mirrored_figure_and_its_own_inverse():
    sample = figure(shift=3, raised=6)
    flipped, mirrored = flip(sample, "densepose24"), figure(shift=3, raised=6, mirrored=True)
    assert not np.array_equal(sample[1], mirrored[1])
    assert np.array_equal(flipped[1], mirrored[1])
    assert np.abs(flipped[2].astype(int) - mirrored[2]).max() <= 1  # 255 - round(x) against round(255 - x)
    for twice, once in zip(flip(flipped, "densepose24"), sample, strict=True):
        assert np.array_equal(twice, once)


def test_a_lip_flip_exchanges_sides():
    labels = np.arange(20, dtype=np.uint8)[None].repeat(2, 0)
    _, flipped, _ = flip((np.zeros((2, 20, 3), np.uint8), labels, np.zeros((2, 20, 2), np.uint8)), "lip20")
    assert flipped[0, ::-1].tolist() == [*range(14), 15, 14, 17, 16, 19, 18]


def test_pictures_labels_and_uv_move_together():
    generator = np.random.default_rng(0)
    for _ in range(20):
        image, labels, uv = figure(raised=5)
        image = np.dstack([labels * 10, uv]).astype(np.uint8)  # a picture that shows its labels and u,v
        moved, labels, uv = move((image, labels, uv), generator)
        flat = np.ones_like(labels, bool)  # away from edges, where a picture is interpolated and labels are not
        for shift in [(-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1), (1, -1), (-1, 1)]:
            flat &= np.roll(labels, shift, (0, 1)) == labels
        flat[[0, -1]] = flat[:, [0, -1]] = False
        assert flat.mean() > 0.5
        assert (moved[flat][:, 0] == labels[flat] * 10).all()
        # u,v change by up to 32 a pixel, and by twice as much where a pixel is less than one of the picture
        assert np.abs(moved[flat][:, 1:].astype(int) - uv[flat]).max() <= 64


def test_hidden_pixels_are_background():
    sample = figure()
    image, labels, uv = hide(sample, np.random.default_rng(1))
    changed = (image != sample[0]).any(-1)
    assert changed.mean() > 0.01
    assert not labels[changed].any() and not uv[changed].any()
    assert np.array_equal(labels[~changed], sample[1][~changed])


def test_what_is_erased_or_padded_is_background_and_the_rest_its_own_label():
    """Each pixel's u,v name the place that it is from: there it had this colour, and this label or its mirrored one."""
    generator = np.random.default_rng(0)
    image = generator.integers(200, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)  # nothing has the colour of what is gone
    labels = generator.integers(1, 20, (HEIGHT, WIDTH), dtype=np.uint8)
    uv = np.stack(np.mgrid[1:HEIGHT + 1, 1:WIDTH + 1], -1).astype(np.uint8)
    erased, moves = 0, set()

    for number in range(80):
        seen, found, places = erase((image, labels, uv), "lip20", np.random.default_rng(number))
        gone = (seen == (124, 116, 104)).all(2)  # ImageNet's mean, 0.485, 0.456, 0.406 of 255
        assert (found[gone] == 0).all() and (places[gone] == 0).all() and (places[~gone] > 0).all()

        row, column = np.argwhere(~gone).T
        there, across = places[~gone].astype(int).T - 1
        mirrored = bool((across + column == across[0] + column[0]).all())
        np.testing.assert_array_equal(seen[~gone], image[there, across])
        np.testing.assert_array_equal(found[~gone], (LIP20_FLIP[labels] if mirrored else labels)[there, across])

        down, right = row - there, column - (WIDTH - 1 - across if mirrored else across)
        assert len(set(down)) == len(set(right)) == 1 and max(abs(down[0]), abs(right[0])) <= PAD
        moves.add((mirrored, int(down[0]), int(right[0])))
        erased += gone[PAD:-PAD, PAD:-PAD].any()

    assert 20 < erased < 60 and {mirrored for mirrored, _, _ in moves} == {False, True}
    for axis in (1, 2):
        assert {-PAD, PAD} <= {move[axis] for move in moves} and len({move[axis] for move in moves}) > 15


def test_augmented_samples_vary_and_repeat(folder):
    sequence = Shuffled(pictures_of(folder), seed=0, augment="all")
    first, again, later = sequence[0], Shuffled(pictures_of(folder), seed=0, augment="all")[0], sequence[8]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image"], later["image"])
    assert {int(sequence[item]["row"]) for item in range(8, 16)} == set(range(8))  # an epoch shows each once
    sample = vary(figure(), "densepose24", np.random.default_rng(2))
    assert [array.shape for array in sample] == [(HEIGHT, WIDTH, 3), (HEIGHT, WIDTH), (HEIGHT, WIDTH, 2)]


def test_batches_do_not_depend_on_start_or_workers(folder):
    pictures = pictures_of(folder)
    whole = list(training_batches(pictures, seed=3, batch=3, start=0, stop=6, workers=0, augment="all"))
    part = list(training_batches(pictures, seed=3, batch=3, start=4, stop=6, workers=1, augment="all"))
    assert len(whole) == 6 and len(part) == 2
    for one, other in zip(whole[4:], part, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("cells", [64, 32, 16, 8])
def test_cells_are_read_beside_their_middle(cells):
    pixels = torch.arange(64)[:, None].repeat(1, 64)
    after, before = (at_cells(pixels, (cells, cells), side)[:, 0] for side in (0, 1))
    middle = (torch.arange(cells) + 0.5) * 64 / cells - 0.5
    assert torch.equal((after + before) / 2, middle)
    assert (before <= after).all() and (after - before <= 1).all()


def test_uv_loss_is_the_true_parts_mean_error():
    torch.manual_seed(0)
    maps, parts, uv = torch.randn(2, 24, 2, 5, 3), torch.randint(0, 25, (2, 5, 3)), torch.rand(2, 2, 5, 3)
    errors = [abs(maps[b, parts[b, y, x] - 1, axis, y, x] - uv[b, axis, y, x]) for b in range(2) for y in range(5)
              for x in range(3) for axis in range(2) if parts[b, y, x] > 0]
    torch.testing.assert_close(uv_loss(maps, parts, uv), torch.stack(errors).mean())
    assert uv_loss(maps, torch.zeros_like(parts), uv) == 0


def test_parts_loss_is_the_cross_entropy_of_summed_probabilities():
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(2, 25, 3, 2), torch.randint(0, 25, (2, 3, 2)), torch.rand(8) + 0.1
    total = weight = torch.zeros(())
    for b, y, x in np.ndindex(2, 3, 2):
        odds = logits[b, :, y, x].exp()
        part = DENSEPOSE24_TO_PARTS8[labels[b, y, x]]
        share = odds[torch.from_numpy(part == DENSEPOSE24_TO_PARTS8)].sum() / odds.sum()
        total, weight = total - weights[part] * share.log(), weight + weights[part]
    torch.testing.assert_close(parts_loss(logits, labels, sums(DENSEPOSE24_TO_PARTS8, 8), weights), total / weight)


class Said:
    """A parser that says what it was told to."""

    def __init__(self, outputs):
        self.outputs = iter(outputs)

    def eval(self):
        return self

    def parse(self, images):
        native, uv = zip(*(next(self.outputs) for _ in images), strict=True)
        return {"native": torch.from_numpy(np.stack(native)), "uv": torch.from_numpy(np.stack(uv))}


def test_scores_against_sets_of_pixels(folder):
    held_out = pictures_of(folder, "val")
    generator = np.random.default_rng(0)
    truth = [held_out.sample(place) for place in range(len(held_out))]
    said = []
    for _, labels, _uv in truth:
        wrong = generator.random(labels.shape) < 0.3
        said.append((np.where(wrong, generator.integers(0, 25, labels.shape), labels).astype(np.uint8),
                     generator.random((*labels.shape, 2), dtype=np.float32)))
    scores = evaluate(Said(said), held_out, groups=DENSEPOSE24_TO_PARTS8, names=PARTS8, batch=2,
                      device=torch.device("cpu"))
    pixels = [(DENSEPOSE24_TO_PARTS8[labels[at]], DENSEPOSE24_TO_PARTS8[native[at]], labels[at] == native[at],
               np.abs(soft[at] - uv[at] / 255) if labels[at] and labels[at] == native[at] else None)
              for (_, labels, uv), (native, soft) in zip(truth, said, strict=True) for at in np.ndindex(labels.shape)]

    def iou(part, pixels):
        both = sum(t == part and p == part for t, p, _, _ in pixels)
        return both / sum(t == part or p == part for t, p, _, _ in pixels)

    for part, name in enumerate(PARTS8):
        assert scores["iou"][name] == pytest.approx(iou(part, pixels), abs=1e-4)
    each = len(pixels) // 5  # held-out pictures are numbers 8 .. 12 of the set, and odd ones have a fifth hidden
    for name, rows in (("clear", (0, 2, 4)), ("hidden", (1, 3))):
        some = [pixel for row in rows for pixel in pixels[row * each:(row + 1) * each]]
        expected = np.mean([iou(part, some) for part in range(8)])
        assert scores[f"miou8_{name}"] == pytest.approx(expected, abs=1e-4)
    assert scores["miou8"] == pytest.approx(np.mean(list(scores["iou"].values())), abs=1e-4)
    assert scores["pixel_accuracy"] == pytest.approx(np.mean([right for _, _, right, _ in pixels]), abs=1e-4)
    assert scores["uv_error"] == pytest.approx(np.mean([e for *_, e in pixels if e is not None]), abs=1e-4)
    assert scores["images"] == 5


def test_a_part_nobody_shows_or_finds_does_not_count(folder):
    held_out = pictures_of(folder, "val")
    nothing = [(np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH, 2), np.float32))] * 5
    held_out.sample = lambda place: (np.zeros((HEIGHT, WIDTH, 3), np.uint8), *nothing[0])
    scores = evaluate(Said(nothing), held_out, groups=DENSEPOSE24_TO_PARTS8, names=PARTS8, batch=5,
                      device=torch.device("cpu"))
    assert scores["miou8"] == 1 and scores["iou"]["foot"] is None and scores["uv_error"] is None


def test_weights_favour_rare_labels_and_keep_the_mean_at_one():
    shares = np.array([0.7, 0.2, 0.1, 0.0])
    weights = rarity_weights(shares).numpy()
    assert weights[0] < weights[1] < weights[2] and weights[3] == 0
    assert weights @ shares == pytest.approx(1)


def test_interrupted_training_comes_to_the_same_weights(folder, tmp_path):
    straight = trained(folder, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        trained(folder, tmp_path / "broken", stop_at=3, checkpoint_steps=2)
    resumed = trained(folder, tmp_path / "broken", checkpoint_steps=2)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_it_learns_eight_pictures(folder, tmp_path):
    parser = trained(folder, tmp_path, steps=70, batch=8, lr=1e-2, augment="flip")
    scores = evaluate(parser, pictures_of(folder), groups=DENSEPOSE24_TO_PARTS8, names=PARTS8, batch=8,
                      device=torch.device("cpu"))
    assert scores["miou8"] > 0.8
    assert scores["uv_error"] < 0.08


def test_a_picture_s_sides_are_resized_each_by_itself(folder):
    """And labels go to the nearest pixel."""
    whole = pictures_of(folder).sample(0)
    other = ParsingSet(folder, "train", taxonomy="densepose24", uv=True, height=HEIGHT * 2, width=WIDTH // 2).sample(0)
    np.testing.assert_allclose(other[0], plain_resize(whole[0], HEIGHT * 2, WIDTH // 2), atol=0.51)
    for big, small in zip(other[1:], whole[1:], strict=True):
        np.testing.assert_array_equal(big[::2], big[1::2])
        assert ((big[::2] == small[:, ::2]) | (big[::2] == small[:, 1::2])).all()


def test_labels_of_another_size_than_their_picture_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    path = tmp_path / "set" / pictures_of(folder).paths[2]
    write_image(path, np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    pictures = pictures_of(tmp_path / "set")
    pictures.sample(1)
    with pytest.raises(InputError, match=rf"labels\.h5: row 2 is {HEIGHT}x{WIDTH} where .*{path.name}' is "
                                         rf"{HEIGHT}x{WIDTH + 1}"):
        pictures.sample(2)


def test_sets_that_cannot_be_read_are_named(folder, tmp_path):
    with pytest.raises(InputError, match=r"labels\.h5.*render"):
        pictures_of(tmp_path / "absent")
    with pytest.raises(InputError, match=r"labels\.h5.*test/"):
        pictures_of(folder, "test")
    with pytest.raises(InputError, match=r"labels\.h5.*lip"):
        ParsingSet(folder, "train", taxonomy="lip20", uv=False, height=HEIGHT, width=WIDTH).sample(0)


STAGE = {"architecture": "lraspp", "labels": "densepose24", "uv": True, "init": "none",
         "height": HEIGHT, "width": WIDTH, "image_steps": 8, "batch": 4, "lr": 1e-3, "augment": "all",
         "seed": 0, "workers": 0}


def run_stage(raw="raw", **changes):
    from stages.train_parser import run
    run(bare_experiment(params={"parsers": {"small": STAGE | changes}, "threads": torch.get_num_threads()},
                        plan={"train_parser": {"small": {"raw": str(raw)}}}), "small")


def test_sgam_s_optimiser_steps_as_written_out():
    """SGD, momentum 0.9 with Nesterov, weight decay 5e-4; the backbone at a tenth of the rate if it is pretrained."""
    parser = build_parser(architecture="lraspp", taxonomy="lip20", uv=False, height=HEIGHT, width=WIDTH, init="none",
                          to_parts8=None, to_parts4=torch.ones(5, 20))
    weights = list(parser.parameters())
    for pretrained in (True, False):
        optimizer = sgam_optimizer(parser, pretrained=pretrained)
        factors = {id(weight): group["factor"] for group in optimizer.param_groups for weight in group["params"]}
        assert factors == {id(weight): 0.1 if pretrained and part is parser.backbone else 1.0
                           for part in (parser.backbone, parser.head) for weight in part.parameters()}
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * group["factor"]

        before, velocity = [weight.detach().clone() for weight in weights], [torch.zeros_like(w) for w in weights]
        for step in range(2):
            for weight in weights:
                weight.grad = torch.full_like(weight, 0.5 + step)
            optimizer.step()
            for place, weight in enumerate(before):
                slope = 0.5 + step + 5e-4 * weight
                velocity[place] = slope if step == 0 else 0.9 * velocity[place] + slope
                weight -= 0.01 * factors[id(weights[place])] * (slope + 0.9 * velocity[place])
        for weight, expected in zip(weights, before, strict=True):
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_the_stage_trains_as_sgam_s_parser_is(folder, tmp_path, monkeypatch):
    """0.1, and a tenth of it from half-way on."""
    monkeypatch.chdir(tmp_path)
    Path("raw").symlink_to(folder)
    rates = []

    def watched(*given, rate, **named):
        rates.extend(rate(share) for share in (0.0, 0.49, 0.5, 0.99))
        return fit(*given, rate=rate, **named)

    monkeypatch.setattr("stages.shared.parser_training.fit", watched)
    run_stage(optimizer="sgd", lr=0.1)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_the_stage_writes_weights_and_scores(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("raw").symlink_to(folder)
    weights = Path("data/parsers/small/weights.safetensors")
    made = []
    for _ in range(2):
        run_stage()
        made.append(weights.read_bytes())
    assert made[0] == made[1]
    scores = json.loads(Path("data/results/parsers/small.json").read_text())["details"][0]
    assert scores.keys() == {"miou8", "miou8_clear", "miou8_hidden", "pixel_accuracy", "uv_error", "iou", "images",
                             "image_steps", "architecture"}
    assert scores["image_steps"] == 8 and scores["images"] == 5
    assert not list(Path("scratch").rglob("*.pt"))
    assert load_parser(weights).parse(torch.zeros(1, 3, HEIGHT, WIDTH, dtype=torch.uint8))["uv"].shape[-1] == 2
    for changes, words in (({"architecture": "unet"}, "small.*lraspp.*deeplabv3"),
                           ({"image_steps": 3}, "image_steps is 3 and batch 4"),
                           ({"raw": "other"}, "other"), ({"lr": 1e15}, "stopped at step"),
                           ({"augment": "some"}, "flip.*all.*erase")):
        with pytest.raises(InputError, match=words):
            run_stage(**changes)
    assert weights.read_bytes() == made[0]
