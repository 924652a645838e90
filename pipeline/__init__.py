"""The library: data sets, caches, warping, training, retrieval, reports. It knows no network."""
