"""In: what parsers saw of each image, row by row.
Out: parts.h5, crops.h5 and dsap.h5, the same bytes whatever came between, and a reader of them.
Enters: stages, parsing, inspection, loading.
"""
