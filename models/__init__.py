"""Networks: one paper, one file, beside the backbone, losses and classifiers that several share; parsers in a room.

In: batches, dicts of tensors. Out: losses, features with their visibility. Stages enter, each by its network's name.
"""
