"""Names of the parts whose distances a report shows, of networks whose features say which they are."""

from collections.abc import Sequence

from pipeline.base.body_parts import PARTS4, PARTS8

# (network, number of its parts) -> their names in the order of its features. Only where they can be no others; the
# parts of a network that is not here have numbers. Nothing but what the page calls them depends on this.
NAMES = {
    ("esa", len(PARTS8)): [*PARTS8[1:], "last region"],
    ("sgam", len(PARTS4)): ["whole image", *PARTS4[1:]],
    ("sgsfa", 8): ["whole body", *PARTS4[1:], "top stripe", "middle stripe", "bottom stripe"],
}
STRIPES = ("histogram",)  # equal ones, the top one first


def part_names(model: str, sizes: Sequence[int]) -> list[str]:
    """sizes: D_p of the parts.

    >>> part_names("sorn", [768, 512, 512]), part_names("baseline", [512]), part_names("mine", [8, 8])
    (['whole image', 'stripe 1', 'stripe 2'], ['whole image'], ['part 1', 'part 2'])
    """
    if len(sizes) == 1:
        return ["whole image"]
    if (model, len(sizes)) in NAMES:
        return NAMES[model, len(sizes)]
    if model in STRIPES:
        return [f"stripe {number}" for number in range(1, len(sizes) + 1)]
    if model == "sorn" and sizes[0] not in sizes[1:]:  # its global feature comes first, of another size
        return ["whole image", *(f"stripe {number}" for number in range(1, len(sizes)))]
    return [f"part {number}" for number in range(1, len(sizes) + 1)]
