"""In: a folder of images, in a published layout or one's own, and joints that belong to it.
Out: an index, one line per image.
Enters: stages; parsing for folders of labelled photographs, inspection for joints.
"""
