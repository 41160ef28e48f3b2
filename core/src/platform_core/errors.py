"""Errors that are the user's to mend: one line on standard error, exit code 2, no traceback."""


class UsageError(ValueError):
    """A request that cannot be met: what was asked, what is possible, what to do."""


class IncompatibleError(UsageError):
    """Parts that do not go together."""
