"""In: what parsers saw of each image, row by row.
Out: parts.h5 and dsap.h5, the same bytes whatever came between, and a reader of both.
Enters: stages, parsing, inspection, loading.
"""
