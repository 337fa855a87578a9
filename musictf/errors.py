"""The one error that is the user's to mend.

Everything a person can get wrong (a misspelt key, a missing file, a broken recording, a label that does not
parse) is raised as an ``InputError`` whose text is a single line: what is wrong, where, and what to do. The
command line prints that line and exits with status 2. Any other exception is a defect and keeps its traceback.
"""


class InputError(ValueError):
    """Input that cannot be used; the message is one line and says what to do about it."""
