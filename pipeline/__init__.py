"""In: files on disk, plain values and built networks.
Out: one room per step of the data's way; base/ is the ground floor, and tests/project/test_doors.py has the doors.
Enters: stages; models/ and the library know nothing of each other.
"""
