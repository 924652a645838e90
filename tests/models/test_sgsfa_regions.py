"""SGSFA's regions: the dynamic division, what is visible, what is chosen and drawn, the medians (Eq. 1 to 5)."""

import itertools
import math
import statistics

import pytest
import torch

from models.sgsfa import (
    VECTORS,
    chosen_regions,
    drawn_regions,
    head_row,
    mask_areas,
    median_areas,
    region_rows,
    region_visibility,
    stripe_visibility,
)
from tests.helpers.networks import with_statistics
from tests.helpers.sgsfa import batch_of, build, double, draw


@pytest.mark.parametrize("rows", [4, 8, 16])
def test_eq_1_divides_what_lies_below_the_head_at_15_and_38_percent(rows):
    tops = torch.arange(rows)
    ours = region_rows(tops, rows)
    for top in range(rows):
        first, second = top + round(0.15 * rows), top + round(0.38 * rows)
        stripes = {"top": {r for r in range(top, first) if r < rows},
                   "middle": {r for r in range(first, second) if r < rows}, "bottom": set(range(second, rows))}
        naive = [stripes["top"], stripes["middle"], stripes["bottom"], stripes["top"] | stripes["middle"],
                 stripes["middle"] | stripes["bottom"]]
        assert [set(torch.nonzero(region)[:, 0].tolist()) for region in ours[top]] == naive
        assert stripes["top"] | stripes["middle"] | stripes["bottom"] == set(range(top, rows))


def test_eq_2_is_1_where_the_stripe_shows_a_body():
    m, tops = draw(6, 4, 8, 4).sigmoid() ** 3, torch.tensor([0, 1, 2, 5, 6, 7])
    inside = region_rows(tops, 8)
    ours = stripe_visibility(m, inside, threshold=0.3)
    assert 0 < ours[:5].mean() < 1
    for b in range(6):
        for stripe in range(3):
            pixels = [max(float(m[b, i, y, x]) for i in range(4))
                      for y in range(8) if inside[b, stripe, y] for x in range(4)]
            assert float(ours[b, stripe]) == (sum(pixels) / len(pixels) > 0.3 if pixels else 0)


def test_eq_3_chooses_by_what_is_visible_from_the_top_down():
    for t, m, b in itertools.product((0.0, 1.0), repeat=3):
        if t and m and b:
            chosen = {"top", "middle", "bottom", "top_middle", "middle_bottom"}
        elif t and m:
            chosen = {"top", "middle", "top_middle"}
        elif t:
            chosen = {"top"}
        else:
            chosen = set()
        ours = chosen_regions(torch.tensor([[t, m, b]]))[0].tolist()
        assert dict(zip(VECTORS[5:], ours, strict=True)) == {name: float(name in chosen) for name in VECTORS[5:]}


@pytest.mark.parametrize("visible", [(0, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
def test_each_non_empty_subset_of_f_choose_is_drawn_as_often(visible):
    """Numbers in the middle of equal shares of [0, 1): each subset once; and its ends are draws like others."""
    chosen = chosen_regions(torch.tensor([visible], dtype=torch.float32))
    names = [i for i in range(5) if chosen[0, i]]
    subsets = {frozenset(some) for size in range(1, 6) for some in itertools.combinations(names, size)}
    uniform = (torch.arange(max(1, len(subsets))) + 0.5) / max(1, len(subsets))
    drawn = drawn_regions(chosen.expand(len(uniform), 5), uniform)
    found = [frozenset(torch.nonzero(row)[:, 0].tolist()) for row in drawn]
    assert set(found) == (subsets or {frozenset()}) and len(set(found)) == len(found)
    ends = drawn_regions(chosen.expand(2, 5), torch.tensor([0.0, 1 - 2 ** -24]))
    assert all((frozenset(torch.nonzero(row)[:, 0].tolist()) in subsets) == bool(subsets) for row in ends)


def test_an_image_draws_for_itself():
    """Neither its neighbours nor what they show move an image's draw."""
    chosen = chosen_regions((draw(40, 3) > -1).float())
    uniform = torch.rand(40, generator=torch.Generator().manual_seed(0))
    together = drawn_regions(chosen, uniform)
    alone = torch.cat([drawn_regions(chosen[i:i + 1], uniform[i:i + 1]) for i in range(40)])
    assert torch.equal(together, alone) and (together <= chosen).all()
    assert torch.equal(together.any(1), chosen.any(1)) and 0 < together.sum() < chosen.sum()


def test_eq_4_and_5_compare_the_mean_of_the_mask_with_a_share_of_the_median():
    m = draw(12, 4, 8, 4).sigmoid()
    medians = torch.tensor([2.4, 2.5, 2.6, torch.inf], dtype=torch.float64)
    ours = region_visibility(m, medians, share=0.2)
    assert 0 < ours[:, :3].mean() < 1
    for b in range(12):
        for i in range(4):
            v = sum(float(m[b, i, y, x]) for y in range(8) for x in range(4)) / 32
            assert float(ours[b, i]) == float(v > 0.2 * float(medians[i]))


def test_the_head_is_where_its_mask_is_first_above_a_half():
    head = torch.full((4, 6, 3), 0.49)
    head[0, 2, 2] = 0.51
    head[0, 4, 0] = 0.9
    head[1, 5, 1] = 0.6
    head[3, 0, 0] = 0.5000001
    assert head_row(head, rule="first").tolist() == [2, 5, 0, 0]  # the third shows no head: row 0
    assert head_row(head, rule="paper").tolist()[:2] == [5, 5]  # below the largest cell, clamped
    m = draw(9, 8, 4).sigmoid()
    for b, row in enumerate(head_row(m, rule="paper").tolist()):
        cells = {(y, x): float(m[b, y, x]) for y in range(8) for x in range(4)}
        assert row == min(max(cells, key=cells.__getitem__)[0] + 1, 7)


def test_an_empty_stripe_has_a_zero_feature_and_is_not_visible():
    """The head in the last row of the map: middle and bottom begin below it."""
    model = with_statistics(build(head_top="paper")).double().eval()
    model.local.spatial[3].register_forward_hook(lambda m, i, o: lowest_head(o))
    with torch.no_grad():
        f, v = model.embed(double(batch_of(ids=2, images=1)))
    f = f.unflatten(1, (8, -1))
    assert v[:, 5:].tolist() == [[1, 0, 0]] * 2
    assert f[:, 6:].abs().sum() == 0 and (f[:, :6].abs().sum(2) > 0).all()


def lowest_head(logits: torch.Tensor) -> torch.Tensor:
    """Every mask half on, and the head's largest in the last row."""
    logits = torch.zeros_like(logits)
    logits[:, 0, -1] = 5.0
    return logits


def test_medians_are_those_of_the_images_that_show_the_region():
    probs = draw(7, 5, 8, 4).mul(3).softmax(1)
    probs[:, 4] = 0  # nobody has shoes
    probs[2:5, 1] = 1e-9  # heads that are not the likeliest anywhere
    areas, present = mask_areas(probs)
    expected = []
    for i in range(1, 5):
        shown = []
        for image in probs.tolist():
            cells = [[image[c][y][x] for c in range(5)] for y in range(8) for x in range(4)]
            if any(max(range(5), key=cell.__getitem__) == i for cell in cells):
                shown.append(sum(cell[i] for cell in cells) / 32)
        expected.append(statistics.median(shown) if shown else math.inf)

    ours = median_areas(areas, present).tolist()
    assert ours[3] == expected[3] == math.inf
    assert present.sum(0).tolist() == [4, 7, 7, 0]
    assert max(abs(a - b) for a, b in zip(ours[:3], expected[:3], strict=True)) < 1e-10


def test_medians_are_asked_for_and_stay_with_the_weights():
    batch = batch_of(ids=2, images=2)
    model = build(median=None)
    maps = (255 * batch["probs4"]).round().byte()
    with pytest.raises(ValueError, match="call measure"):
        model(batch)
    assert model.measure(list(maps.numpy())) == {}
    model(batch)
    other = build(1, median=None)
    other.load_state_dict(model.state_dict())
    other(batch)
    assert torch.equal(other.medians, median_areas(*mask_areas(maps.float() / 255)))


@pytest.mark.parametrize("rule", ["first", "paper"])
@pytest.mark.parametrize(("rows", "empty"), [(8, False), (2, True)])
def test_without_trained_masks_bodies_begin_in_row_0_and_every_stripe_is_visible(rows, empty, rule):
    """lambda 0, whatever the masks, which nothing taught, would say; a stripe without rows has v = 0 all the same."""
    image = torch.randn(3, 3, 16 * rows, 32, dtype=torch.float64)
    for trade_off in (0.0, 0.2):
        model = build(trade_off=trade_off, head_top=rule, median=0.5).double().eval()
        model.local.spatial[3].register_forward_hook(lambda m, i, o: nobody(o))
        with torch.no_grad():
            net = model.see(image, head_top=rule)
            _, v = model.embed({"image": image})
        starts = net.inside[:, 3 if empty else 0].to(torch.uint8).argmax(1).tolist()
        if trade_off == 0:
            assert starts == [0, 0, 0] and v.tolist() == [[0, 1, 1, 1, 1, float(not empty), 1, 1]] * 3
            assert net.chosen.tolist() == [[float(not empty)] * 5] * 3
        else:
            assert v.sum() == 0 and starts == [1 if rule == "paper" else 0] * 3


def nobody(logits: torch.Tensor) -> torch.Tensor:
    """Masks that see nothing, least below the first row."""
    logits = torch.full_like(logits, -9.0)
    logits[:, :, 0] = -8.0
    return logits
