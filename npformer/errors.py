"""A user's mistake, as opposed to a bug."""


class UserError(Exception):
    """What is wrong, where, and what to do, in one line.

    The command line prints the line and exits with status 2; a library caller may catch it.
    Anything else that escapes is a bug and keeps its traceback.
    """


class UnreadableError(UserError):
    """A file cannot be opened, though it may be whole: no permission, too many files are open."""


class UnwritableError(UserError):
    """A file cannot be written: no space, no permission, no such directory."""
