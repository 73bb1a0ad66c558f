"""Errors a user can mend: one line that says what was found, what was expected and what to do.

The commands print them without a traceback.
"""


class UserError(Exception):
    """Base of every error that is the input's or the machine's, not the program's.

    `str()` is one readable line.
    """


class ConfigError(UserError):
    """A configuration key or value that is not allowed; the message begins with the key's path."""


class TableError(UserError):
    """A Delta table that is missing, half-written, or does not have the columns and types it must have."""


class InputError(UserError):
    """An input file that cannot be read, or data with which the step cannot be right."""


class BundleError(UserError):
    """A model bundle that is missing, damaged, too new for the run date, or of another catalogue."""


class SetupError(UserError):
    """Something the machine lacks: Java, Delta's JARs, a model folder, a package, disk space."""


class NotFrozenError(AssertionError):
    """A frozen model's weights changed: a defect of the program, never of the input."""
