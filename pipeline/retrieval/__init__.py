"""In: features of queries and gallery, our own or others'.
Out: rankings, metrics and scores of trust.
Enters: stages alone.
"""
