"""In: a cache and, to compare with, an index, joints or another cache.
Out: whether it is sound and plausible, as checks, metrics and contact sheets.
Enters: stages alone.
"""
