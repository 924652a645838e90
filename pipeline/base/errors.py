"""InputError: the one error a user can cause."""


class InputError(ValueError):
    """Something outside the program is wrong: a file, a parameter, a data set.

    The message is one sentence that names the file, both values where two disagree, and the remedy.
    Stages print it as one line and exit with status 2.
    """
