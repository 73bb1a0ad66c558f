"""Errors a user can mend, or wait out: one line that says what was found, what was expected and what to do.

The commands print them without a traceback and end with the class's exit code, by which a scheduler knows
whether to try again.
"""

ASKED_WRONG, DATA_WRONG, TRY_AGAIN = 2, 3, 4
"""Exit codes: a mistake in what was asked, data that must be looked at, trouble that passes."""


class UserError(Exception):
    """Base of every error that is the input's or the machine's, not the program's.

    `str()` is one readable line.
    """

    exit_code = ASKED_WRONG
    """What a command ends with."""


class ConfigError(UserError):
    """A configuration key, option or value that is not allowed; the message begins with its name."""


class SetupError(UserError):
    """Something the machine lacks: Java, Delta's JARs, a model folder, a package, a right to write."""


class SupersededError(UserError):
    """A newer run works on the same date: this one may not write any more, and need not be tried again."""


class TableError(UserError):
    """A Delta table that is missing, half-written, or does not have the columns and types it must have."""

    exit_code = DATA_WRONG


class InputError(UserError):
    """An input file that cannot be read, or data with which the step cannot be right."""

    exit_code = DATA_WRONG


class BundleError(UserError):
    """A model bundle that is missing, damaged, too new for the run date, or of another catalogue."""

    exit_code = DATA_WRONG


class GateError(UserError):
    """A night that may not be published: a rule of the section `gates` is broken."""

    exit_code = DATA_WRONG


class PassingError(UserError):
    """Trouble that passes by itself or once room is made: a conflict, a lost process, a full disk."""

    exit_code = TRY_AGAIN


class NotFrozenError(AssertionError):
    """A frozen model's weights changed: a defect of the program, never of the input."""
