"""All distances of two small sets in one array."""

import numpy as np

from pipeline.retrieval.distances import as_given, strips
from pipeline.retrieval.matching import Matching, Side, settle


def pair_distances(query: Side, gallery: Side, matching: Matching, device: str = "cpu") -> np.ndarray:
    """(Q, G) as the features give them; infinite where a pair shares no part."""
    matching = settle(query, gallery, matching)
    (_, strip), = strips(query, gallery, matching, device=device, megabytes=np.inf)
    return as_given(strip, matching)
