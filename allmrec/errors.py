"""Errors that a user can mend or wait out, in one line.

The line has what was found, what was expected and what to do. The commands print it without a traceback and
end with the class's exit code, by which a scheduler decides about a retry.
"""

ASKED_WRONG = 2
DATA_WRONG = 3
TRY_AGAIN = 4
"""Exit codes: a mistake in the request, data that need a look, a failure that passes by itself."""


class UserError(Exception):
    """Base of errors of the input or the machine.

    `str()` is one readable line.
    """

    exit_code = ASKED_WRONG
    """The exit code of the command."""


class ConfigError(UserError):
    """A configuration key, option or value that is not allowed, named first."""


class SetupError(UserError):
    """A missing part of the machine: Java, JARs, model, package, right."""


class SupersededError(UserError):
    """A newer run works on the same date. This one must not write or be retried."""


class TableError(UserError):
    """A Delta table that is missing, half-written or of other columns."""

    exit_code = DATA_WRONG


class InputError(UserError):
    """An input file that cannot be read, or wrong data."""

    exit_code = DATA_WRONG


class BundleError(UserError):
    """A model bundle that is missing, damaged, too new or foreign."""

    exit_code = DATA_WRONG


class GateError(UserError):
    """A night that breaks a rule of the section `gates`."""

    exit_code = DATA_WRONG


class PassingError(UserError):
    """A failure that passes: a conflict, a lost process, a full disk."""

    exit_code = TRY_AGAIN


class NotFrozenError(AssertionError):
    """A frozen model's weights changed: a defect of the program."""
