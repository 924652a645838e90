"""In: images and a parser, or labels to train one on.
Out: rows of parts.h5 and crops.h5 (labels, probabilities, u,v, visibility), and a trained parser.
Enters: stages alone.
"""
