"""In: a network and batches.
Out: its weights, from one process or several, resumable.
Enters: stages; parsing for Muon.
"""
