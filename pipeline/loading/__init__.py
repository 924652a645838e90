"""In: an index, its images and caches.
Out: batches on the device, as networks take them.
Enters: stages; parsing for `collate`, which brings errors out of loading processes.
"""
