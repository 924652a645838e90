"""The figure: mirrored people have mirrored labels, charts run as DensePose's, the nearest surface wins."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.base.body_parts import DENSEPOSE24, DENSEPOSE24_FLIP, LIP20, LIP20_FLIP
from pipeline.base.seeds import rng
from pipeline.caches.warp import warp
from pipeline.loading.augmentation import flip_parts
from pipeline.renderer import clothing, tube_mesh, uv_charts
from pipeline.renderer.body_mesh import build_mesh
from pipeline.renderer.person import draw_person
from pipeline.renderer.pose import draw_pose
from pipeline.renderer.rasterizer import Camera, rasterise
from pipeline.renderer.shading import Light, draw_figure

DEMO = Path(__file__).resolve().parents[3] / "shared" / "data" / "densepose_demo"
# What a mirror makes of u and v, part by part, once left and right have changed places.
TURNS_U = [part for part, name in enumerate(DENSEPOSE24) if {"hand", "foot", "head"} & set(name.split())]
TURNS_V = [part for part, name in enumerate(DENSEPOSE24) if "torso" in name]
HANDS, FEET = ([part for part, name in enumerate(DENSEPOSE24) if kind in name] for kind in ("hand", "foot"))
SUN = Light(sun=(0.0, 1.0, 0.0), strength=.4, ambient=.7, tint=(1.0, 1.0, 1.0))


def _draw(person, pose, azimuth, height=256, width=192):
    camera = Camera(azimuth=azimuth, elevation=.15, distance=6.0, target=.9)
    scale = np.full(2, height / 2.2)
    return draw_figure(person, build_mesh(person, pose), camera, SUN, scale, np.array([width / 2, height / 2]), height,
                       width, rng(0, "folds"))


@pytest.mark.parametrize("number", range(8))
def test_a_mirrored_person_has_mirrored_labels(number):
    draw = rng(1, "mirror", number)
    person = replace(draw_person(draw, True), coat="none")
    if person.bag == "backpack":                           # the straps' and box's mirror image is itself
        person = replace(person, bag="none")
    pose, azimuth = draw_pose(draw), float(draw.uniform(-np.pi, np.pi))
    here = _draw(person, pose, azimuth)
    there = _draw(replace(person, bag_left=not person.bag_left), pose.mirrored(), -azimuth)
    seen, other = here.mask, there.mask[:, ::-1]
    assert (seen != other).sum() <= 8                                       # rounding on the outline
    both = seen & other
    part, lip = there.part[:, ::-1], there.lip[:, ::-1]
    agree = both & (DENSEPOSE24_FLIP[part] == here.part)
    assert agree.sum() > .995 * both.sum()
    assert (LIP20_FLIP[lip] == here.lip)[agree].mean() > .97          # hair and fringes have their own edges
    u, v = there.u[:, ::-1], there.v[:, ::-1]
    u = np.where(np.isin(part, TURNS_U), 1 - u, u)
    v = np.where(np.isin(part, TURNS_V), 1 - v, v)
    for ours, theirs in ((here.u, u), (here.v, v)):
        off = np.abs(ours - theirs)
        off = np.minimum(off, 1 - off)
        # Quads are cut on the other diagonal: a few pixels differ by more than rounding, most of them at the crown.
        assert (off[agree] < 1 / 255).mean() > .97 and (off[agree] < 8 / 255).mean() > .99
        for small in (HANDS, FEET):
            of_them = off[agree & np.isin(here.part, small)]
            assert len(of_them) > 50 and (of_them < 8 / 255).mean() > .97


def test_dsap_images_of_a_mirrored_person_are_the_flipped_ones():
    """A picture whose colours say where a pixel lies, warped by a person's u,v and mirrored by flip_parts, against the
    mirrored picture warped by the mirrored person's: the same texels have colours of the same places."""
    rows, columns = np.indices((256, 192))
    image = np.stack([rows, columns, np.full_like(rows, 9)], 2).astype(np.uint8)
    compared = np.zeros(24, int)
    for number in range(16):
        draw = rng(4, "dsap", number)
        person = replace(draw_person(draw), coat="none", bag="none")
        pose, azimuth = draw_pose(draw), number * np.pi / 8
        here, there = _draw(person, pose, azimuth), _draw(person, pose.mirrored(), -azimuth)

        dsap, valid = _warped(image, here)
        turned, turned_valid = (flip_parts(torch.from_numpy(maps)[None], torch.tensor([True]))[0].numpy()
                                for maps in (dsap, valid))
        expected, expected_valid = _warped(image[:, ::-1], there)

        assert (turned_valid == expected_valid).mean() > .99
        both = turned_valid.astype(bool) & expected_valid.astype(bool)
        off = np.abs(turned.astype(int) - expected).max(-1)
        for part in range(24):
            of_it = off[part][both[part]]
            if len(of_it) >= 40:
                # Of several pixels on one texel the last in its picture's order stays, which a mirror changes.
                assert np.median(of_it) <= 2 and (of_it <= 8).mean() > .9, DENSEPOSE24[part + 1]
                compared[part] += 1
    assert compared.min() >= 2


def _warped(image, figure):
    """As caches hold it: u and v are bytes."""
    uv = np.round(np.stack([figure.u, figure.v], 2) * 255).astype(np.uint8)
    return warp(np.ascontiguousarray(image), figure.part, uv, texels=32)


def test_lip_s_labels_have_their_names():
    assert [LIP20[label] for label in (clothing.HAT, clothing.UPPER, clothing.FACE)] == ["hat", "upper-clothes", "face"]
    assert [LIP20[label] for label in clothing.SIDED[1]] == ["right-arm", "right-leg", "right-shoe"]


def test_an_unmirrored_label_map_would_fail_the_mirror_test():
    person, pose = replace(draw_person(rng(1, "x"), False), bag="none", coat="none"), draw_pose(rng(1, "y"))
    here, there = _draw(person, pose, .4), _draw(person, pose.mirrored(), -.4)
    part = there.part[:, ::-1]
    both = (part > 0) & (here.part > 0)
    assert (part == here.part)[both].mean() < .6                              # ids must change sides
    torso = both & (here.part == uv_charts.TORSO_FRONT) & (part == uv_charts.TORSO_FRONT)
    assert np.abs(here.v - there.v[:, ::-1])[torso].mean() > .1               # and the torso's v must turn


def _slopes(part, u, v):
    """Least-squares slopes of u and v over x and y."""
    rows, columns = np.nonzero(part)
    plane = np.column_stack([columns, rows, np.ones(len(rows))]).astype(float)
    return [np.linalg.lstsq(plane, values[part].astype(float), rcond=None)[0][:2] for values in (u, v)]


def test_charts_run_as_in_densepose_output():
    """A person in the demo picture faces the camera; so does ours. The charts of the parts seen must run alike. That
    person's feet are turned otherwise: there v has to lie on the same side of u."""
    if not DEMO.exists():
        pytest.skip("../shared/data/densepose_demo is absent")
    iuv = cv2.imread(str(DEMO / "demo_im_IUV.png"))[185:460, 185:275]
    index, u, v = (iuv[..., i] for i in range(3))
    draw = rng(3, "chart")
    person = replace(draw_person(draw), coat="none", bag="none", bottom="trousers", hair_style="short", hat="none")
    pose = replace(draw_pose(draw), shoulder=(0., 0.), abduct=(.12, .12), elbow=(.15, .15), rotate=(.3, .3), yaw=0.,
                   hip=(0., 0.), knee=(0., 0.), twist=0., lean=0., sway=0.)
    ours = _draw(person, pose, 0.0)
    compared = 0
    for part in (2, 3, 4, 5, 6, 9, 10, 13, 14, 15, 16, 19, 20, 21, 22, 23, 24):
        real = _slopes(index == part, u, v)
        made = _slopes(ours.part == part, ours.u, ours.v)
        if part in FEET:
            assert _sine(*real) * _sine(*made) > .6, f"part {part}"
            real, made = real[:1], made[:1]
        for one, other in zip(real, made, strict=True):
            cosine = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
            assert cosine > .6, f"part {part}"
            compared += 1
    assert compared == 32


def _sine(one, other):
    """Of the angle from one slope to another: its sign says on which side the other lies."""
    return (one[0] * other[1] - one[1] * other[0]) / np.linalg.norm(one) / np.linalg.norm(other)


def test_charts_cover_their_range_and_stay_in_it():
    a, t = (grid.ravel() for grid in np.meshgrid(np.linspace(0, 1, 81), np.linspace(0, 3, 91)))
    person = draw_person(rng(0, "range"))
    seen = set()
    for tube, top in ((tube_mesh.TRUNK, 1), (tube_mesh.HEAD, 1), (tube_mesh.ARM_L, 3), (tube_mesh.ARM_R, 3),
                      (tube_mesh.LEG_L, 2), (tube_mesh.LEG_R, 2), (tube_mesh.FOOT_L, 1), (tube_mesh.FOOT_R, 1)):
        part, u, v = uv_charts.chart(tube, t / 3 * top, a, person)
        for one in np.unique(part):
            at = part == one
            for values in (u[at], v[at]):
                assert values.min() >= 0 and values.max() <= 1
                assert np.ptp(values) > .9, f"part {one} uses only {np.ptp(values):.2f} of its chart"
        seen |= set(np.unique(part).tolist())
    assert seen == set(range(1, 25))


def test_the_mesh_is_closed_seen_from_anywhere():
    """No pinholes: hardly a pixel of background is enclosed by the person (between arm and trunk it may be)."""
    specks = 0
    for number in range(12):
        draw = rng(2, "holes", number)
        figure = _draw(replace(draw_person(draw, True), coat="none"), draw_pose(draw), number * .7)
        _, _, stats, _ = cv2.connectedComponentsWithStats((~figure.mask).astype(np.uint8), connectivity=4)
        specks += int((stats[1:, cv2.CC_STAT_AREA] <= 1).sum())
    assert specks <= 6


def test_rasterise_against_a_naive_loop():
    draw = rng(0, "raster")
    xy, depth = draw.uniform(-4, 24, (60, 2)), draw.uniform(1, 2, 60)
    triangles = draw.permutation(60).reshape(20, 3)
    pixel, triangle, weights, near = rasterise(xy, depth, triangles, 18, 20)
    found = dict(zip(pixel.tolist(), zip(triangle, weights, near, strict=True), strict=True))
    for y in range(18):
        for x in range(20):
            best = None
            for number, corners in enumerate(triangles):
                p, (one, two, three) = np.array([x + .5, y + .5]), xy[corners]
                cross = lambda a, b: a[0] * b[1] - a[1] * b[0]                       # noqa: E731
                area = cross(two - one, three - one)
                shares = np.array([cross(three - two, p - two), cross(one - three, p - three),
                                   cross(two - one, p - one)])
                if area > 0 and (shares >= 0).all():
                    at = float((shares / area * depth[corners]).sum())
                    if best is None or at < best[1]:
                        best = number, at, shares / area
            assert (best is not None) == (y * 20 + x in found)
            if best is not None:
                got = found[y * 20 + x]
                assert got[0] == best[0]
                np.testing.assert_allclose(got[1], best[2], atol=1e-5)
                assert got[2] == pytest.approx(best[1], rel=1e-5)
