"""The one exception that means "the user's input is wrong"."""


class InputError(ValueError):
    """Bad input, told in one line: the value, what was expected, what to do.

    The command line prints its text and exits with code 2. Anything else that is raised is a
    programming error and keeps its traceback.
    """
