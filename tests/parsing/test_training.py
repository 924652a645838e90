"""Training of parsers on a stand-in for the rendered set: losses, scores, steps."""

import functools
import shutil

import numpy as np
import pytest
import torch

from models.parsers.torchvision_parsers import build_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8
from pipeline.base.errors import InputError
from pipeline.base.images import write_image
from pipeline.parsing.augmentation import UNKNOWN
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
from stages.shared.parser_training import sums
from tests.helpers.figures import HEIGHT, WIDTH, pictures_of
from tests.helpers.plain_resize import plain_resize


def new_parser():
    torch.manual_seed(0)
    return build_parser(architecture="lraspp", taxonomy="densepose24", uv=True, height=HEIGHT, width=WIDTH,
                        to_parts8=sums(DENSEPOSE24_TO_PARTS8, 8), to_parts4=torch.ones(5, 25) / 5)


def trained(folder, scratch, *, steps=4, batch=4, lr=1e-3, augment="all", stop_at=None, **more):
    """A parser trained by `fit`; with `stop_at`, interrupted before that step."""
    pictures = pictures_of(folder)
    parser = new_parser()

    def batches(start):
        sequence = Shuffled(pictures, seed=0, augment=augment)
        for step, content in enumerate(training_batches(sequence, batch=batch, start=start, stop=steps, workers=0),
                                       start):
            if step == stop_at:
                raise KeyboardInterrupt
            yield content

    fit(Objective(parser, shares=label_shares(pictures)), make_optimizer(parser), steps=steps,
        batches=batches, batch_size=batch, rate=functools.partial(learning_rate, lr=lr), seed=0, scratch=scratch,
        device=torch.device("cpu"), precision="float32", live=scratch / "live", keys=pictures.paths, **more)
    return parser


def test_batches_do_not_depend_on_start_or_workers(folder):
    sequence = Shuffled(pictures_of(folder), seed=3, augment="all")
    whole = list(training_batches(sequence, batch=3, start=0, stop=6, workers=0))
    part = list(training_batches(sequence, batch=3, start=4, stop=6, workers=1))
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


def test_pixels_of_unknown_label_and_rows_without_uv_teach_nothing(folder):
    """The loss is that of the known pixels, whatever the others look like in the labels."""
    shares = label_shares(pictures_of(folder))
    batch = next(training_batches(Shuffled(pictures_of(folder), seed=0, augment="flip"), batch=4, start=0, stop=1,
                                  workers=0))
    objective = Objective(new_parser().eval(), shares=shares)

    def scalars(batch):
        torch.manual_seed(1)
        return {name: value.item() for name, value in objective(batch)[1].items()}

    plain = scalars(batch)
    assert scalars(batch | {"has_uv": torch.ones(4, dtype=torch.bool)}) == plain
    without = scalars(batch | {"has_uv": torch.tensor([True, True, False, False])})
    half = {name: value[:2] for name, value in batch.items()}
    assert without["uv_loss"] == pytest.approx(scalars(half)["uv_loss"], rel=1e-5)
    assert without["label_loss"] == plain["label_loss"]
    assert scalars(batch | {"has_uv": torch.zeros(4, dtype=torch.bool)})["uv_loss"] == 0

    labels = batch["labels"].clone()
    labels[2:] = UNKNOWN
    found, expected = scalars(batch | {"labels": labels}), scalars(half)
    assert found == pytest.approx(expected, rel=1e-5)
    labels[0, 20:] = UNKNOWN
    changed = scalars(batch | {"labels": labels})
    assert all(np.isfinite(value) for value in changed.values()) and changed["label_loss"] != found["label_loss"]


def test_unknown_pixels_are_not_scored(folder):
    held_out = pictures_of(folder, "val")
    image, labels, uv = held_out.sample(0)
    true = labels.copy()
    true[:20] = UNKNOWN
    held_out.sample = lambda place: (image, true, uv)
    wrong = np.where(true == UNKNOWN, 7, labels).astype(np.uint8)  # right wherever anybody knows
    scores = evaluate(Said([(wrong, uv / np.float32(255))] * 5), held_out, groups=DENSEPOSE24_TO_PARTS8, names=PARTS8,
                      batch=5, device=torch.device("cpu"))
    assert scores["miou8"] == scores["pixel_accuracy"] == 1 and scores["uv_error"] == pytest.approx(0, abs=1e-4)


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
