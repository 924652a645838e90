"""Augmentation for parsers: flips, moves, light, blur, noise, hidden rectangles; labels and u,v move along."""

import cv2
import numpy as np

from pipeline.base.body_parts import DENSEPOSE24_FLIP, DENSEPOSE24_MIRROR_U, DENSEPOSE24_MIRROR_V, LIP20_FLIP
from pipeline.base.erasing import draw_rectangle
from pipeline.base.images import IMAGENET_MEAN

PAD = 10  # pixels on each side before a random crop
MEAN_COLOUR = (255 * IMAGENET_MEAN).round().astype(np.uint8)

UNKNOWN = 255  # a label that nobody knows: no loss and no score reads that pixel

# image (H,W,3) RGB, native labels (H,W), u,v x 255 (H,W,2) with 0 where there are none; all uint8
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def _with_unknown(flipped: np.ndarray) -> np.ndarray:
    """A look-up table of labels that leaves UNKNOWN as it is."""
    table = np.arange(256, dtype=np.uint8)
    table[:len(flipped)] = flipped
    return table


DENSEPOSE24_MIRROR, LIP20_MIRROR = _with_unknown(DENSEPOSE24_FLIP), _with_unknown(LIP20_FLIP)


def flip(sample: Sample, taxonomy: str) -> Sample:
    """Mirror a sample; its own inverse. Left and right exchange their labels, and on DensePose's surface the torso's v
    and the u of hands, feet and head are mirrored: the charts of arms and legs mirror each other already."""
    image, labels, uv = (array[:, ::-1] for array in sample)
    if taxonomy != "densepose24":
        return image, LIP20_MIRROR[labels], uv

    labels, uv = DENSEPOSE24_MIRROR[labels], uv.copy()
    for parts, axis in ((DENSEPOSE24_MIRROR_U, 0), (DENSEPOSE24_MIRROR_V, 1)):
        uv[..., axis] = np.where(np.isin(labels, parts), 255 - uv[..., axis], uv[..., axis])

    return image, labels, uv


def maybe_flip(sample: Sample, taxonomy: str, generator: np.random.Generator) -> Sample:
    """A sample or, as often, its mirror image."""
    return flip(sample, taxonomy) if generator.random() < 0.5 else sample


def vary(sample: Sample, taxonomy: str, generator: np.random.Generator) -> Sample:
    """One random variant of a sample: everything that this file can do."""
    image, labels, uv = move(maybe_flip(sample, taxonomy, generator), generator)
    image = light(image, generator)
    if generator.random() < 0.3:
        image, labels, uv = hide((image, labels, uv), generator)
    return degrade(image, generator), labels, uv


def move(sample: Sample, generator: np.random.Generator) -> Sample:
    """Scale 0.8-1.3, aspect within 10 %, rotation within 8 degrees, shift within 8 %. The border is repeated in labels
    and u,v too: a body that the frame cuts goes on."""
    height, width = sample[1].shape
    scale, aspect = np.exp(generator.uniform(-0.22, 0.26)), np.exp(generator.uniform(-0.1, 0.1))
    angle = np.deg2rad(generator.uniform(-8, 8))
    shift = generator.uniform(-0.08, 0.08, 2) * (width, height)
    matrix = np.array([[np.cos(angle) * aspect, -np.sin(angle)], [np.sin(angle), np.cos(angle) / aspect]]) * scale
    centre = np.array([width - 1, height - 1]) / 2
    matrix = np.column_stack([matrix, centre + shift - matrix @ centre])

    def warp(array: np.ndarray, flags: int) -> np.ndarray:
        return cv2.warpAffine(np.ascontiguousarray(array), matrix, (width, height), flags=flags,
                              borderMode=cv2.BORDER_REPLICATE)

    image, labels, uv = sample
    return warp(image, cv2.INTER_LINEAR), warp(labels, cv2.INTER_NEAREST), warp(uv, cv2.INTER_NEAREST)


def light(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Another exposure, contrast, gamma, white balance and saturation: other cameras, other clothes."""
    levels = np.linspace(0, 1, 256) ** np.exp(generator.uniform(-0.5, 0.5))
    gains = np.exp(generator.uniform(-0.3, 0.3) + generator.uniform(-0.15, 0.15, 3))
    contrast, offset = generator.uniform(0.7, 1.3), generator.uniform(-0.12, 0.12)
    table = ((levels[:, None] * gains - 0.45) * contrast + 0.45 + offset) * 255
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    saturation = generator.uniform(0.4, 1.4)

    return cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)


def hide(sample: Sample, generator: np.random.Generator) -> Sample:
    """Cover a rectangle, up to half as high and as wide as the image, with a flat or noisy colour: background."""
    image, labels, uv = (array.copy() for array in sample)
    size = generator.uniform(0.1, 0.5, 2) * labels.shape
    top, left = generator.uniform(-size / 2, labels.shape - size / 2).astype(int)
    rows, columns = slice(max(top, 0), int(top + size[0])), slice(max(left, 0), int(left + size[1]))
    noise = generator.normal(0, generator.uniform(0, 40), image[rows, columns].shape)
    image[rows, columns] = np.clip(generator.uniform(0, 255, 3) + noise, 0, 255)
    labels[rows, columns] = uv[rows, columns, 0] = uv[rows, columns, 1] = 0

    return image, labels, uv


def degrade(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Blur, fewer pixels, sensor noise and JPEG, each sometimes: what small surveillance crops have gone through."""
    blur, shrink, noise, jpeg = generator.random(4) < (0.25, 0.25, 0.3, 0.3)
    height, width = image.shape[:2]
    if blur:
        image = cv2.GaussianBlur(image, (5, 5), generator.uniform(0.4, 1.3))
    if shrink:
        share = generator.uniform(0.4, 0.9)
        small = cv2.resize(image, (int(width * share), int(height * share)), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if noise:
        grain = generator.normal(0, generator.uniform(2, 10), image.shape).astype(np.float32)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if jpeg:
        quality = int(generator.integers(25, 90))
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))

    return image


def erase(sample: Sample, taxonomy: str, generator: np.random.Generator) -> Sample:
    """SGAM 4.2: flip, random crop after padding, random erasing, as its re-ID network is trained. What is erased or
    padded has ImageNet's mean colour and is background, so that no obstacle is learned as a body."""
    sample = maybe_flip(sample, taxonomy, generator)
    height, width = sample[1].shape
    (down, right), gone = generator.integers(-PAD, PAD + 1, 2).tolist(), np.ones((height, width), bool)
    gone[max(down, 0):height + min(down, 0), max(right, 0):width + min(right, 0)] = False

    box = draw_rectangle(generator, height=height, width=width) if generator.random() < 0.5 else None
    if box is not None:
        top, left, bottom, end = box
        gone[top:bottom, left:end] = True

    image, labels, uv = (np.roll(array, (down, right), (0, 1)) for array in sample)
    image[gone], labels[gone], uv[gone] = MEAN_COLOUR, 0, 0
    return image, labels, uv
