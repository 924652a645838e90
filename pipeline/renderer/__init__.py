"""In: a seed, or the query images of another data set.
Out: images of people with exact labels, and occluded queries.
Enters: stages alone.
"""
