"""The error of input that the user must correct.

Every problem with the input (a misspelt key, a missing file, a broken recording, a label that does not parse) is raised
as an ``InputError`` whose text is a single line: what is wrong, where, and what to do. The command line prints that
line and exits with status 2. Any other exception is a defect of the program and keeps its traceback.
"""


class InputError(ValueError):
    """Input that cannot be used; the message is one line: what is wrong, where, and what to do."""
