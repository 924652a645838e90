"""In: nothing of ours, only files, names and numbers.
Out: errors, images, HDF5 and MATLAB files, body parts, random streams, whole files.
Enters: everybody, from every room and stage.
"""
