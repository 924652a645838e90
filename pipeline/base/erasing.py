"""Random erasing's rectangle (Zhong et al. 2017), for images that networks and parsers learn from."""

import numpy as np

AREA = (0.02, 0.4)  # share of the image; random erasing's own ranges
ASPECT = (0.3, 1 / 0.3)  # height over width
ATTEMPTS = 100


def draw_rectangle(generator: np.random.Generator, *, height: int, width: int, area: tuple[float, float] = AREA
                   ) -> tuple[int, int, int, int] | None:
    """Random erasing's rectangle (Zhong et al. 2017, Algorithm 1): (top, left, bottom, right), or None if none fits.

    Its area is uniform in that share of the image, 0.02-0.4 for random erasing; its height over width in 0.3-3.33.
    """
    for _ in range(ATTEMPTS):
        pixels = generator.uniform(*area) * height * width
        aspect = generator.uniform(*ASPECT)
        h, w = round((pixels * aspect) ** 0.5), round((pixels / aspect) ** 0.5)

        if 0 < h < height and 0 < w < width:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            return top, left, top + h, left + w
    return None
