"""Options that commands share: configuration, run date, options of one run."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from allmrec.runtime.context import RunOptions

Command = Callable[..., None]

FIRST_RUN_DATE = date(1970, 1, 2)
"""The first run date that an event can precede, because times are counted from 1970."""
MAX_DAYS_AHEAD = 366
"""How many days after today (UTC) a run date may be. A date far ahead would be the newest night for years."""


def configured(function: Command) -> Command:
    """Add --config and --set to a command, which gets a `Config`."""

    @click.option(
        "--config",
        multiple=True,
        metavar="FILE",
        help="YAML overlay on the defaults; may be repeated, later ones win.",
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Overrides one setting; may be repeated, later ones win.",
    )
    @functools.wraps(function)
    def command(config: tuple[str, ...], overrides: tuple[str, ...], **others: Any) -> None:
        # Imported here, because `--help` needs no configuration.
        from allmrec.config import load

        function(load(config, overrides, _warn), **others)

    return command


def _warn(line: str) -> None:
    """Write a warning to standard error."""
    print(f"warning: {line}", file=sys.stderr)


def asked_for_json(arguments: Sequence[str]) -> bool:
    """Return whether arguments, valid or not, set `reporting.json_lines`."""
    values: dict[str, list[str]] = {"--config": [], "--set": []}
    words = iter(arguments)
    for word in words:
        option, equals_sign, value = word.partition("=")
        if word == "--":
            break
        if option in values:
            values[option].append(value if equals_sign else next(words, ""))
    if not any(values.values()):
        return False
    from allmrec.config import asks_for_json

    return asks_for_json(values["--config"], values["--set"])


class _Rule(click.ParamType):
    """A rule of the section `gates`, which is read when a rule is given."""

    name = "rule"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the rule. Raises BadParameter where it is unknown."""
        return self._rules().convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the rules that begin with `incomplete`."""
        return self._rules().shell_complete(ctx, param, incomplete)

    @staticmethod
    def _rules() -> click.Choice:
        from allmrec.config import GatesConfig

        return click.Choice(list(GatesConfig.model_fields))


RUN_OPTIONS = {
    "force": click.option("--force", is_flag=True, help="Repeat finished steps."),
    "refresh": click.option(
        "--refresh",
        is_flag=True,
        help="Read the newest versions of the input tables, not those of the date's last run.",
    ),
    "full": click.option("--full", is_flag=True, help="Score all users; keep no list of the night before."),
    "max_minutes": click.option(
        "--max-minutes",
        type=click.FloatRange(min=0),
        help="Minutes after which the LLM reads no further user.",
    ),
    "override": click.option(
        "--override",
        multiple=True,
        type=_Rule(),
        metavar="RULE",
        help="A rule of the section `gates` that may be broken; may be repeated, and is recorded.",
    ),
}
"""Options of commands that run a date. They belong to one run, not to a configuration."""


def run_options(*names: str) -> Callable[[Command], Command]:
    """Return the decorator that adds some of `RUN_OPTIONS` to a command.

    The command gets `RunOptions`.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(*positional: Any, **others: Any) -> None:
            asked = {name: others.pop(name) for name in names}
            function(*positional, options=_as_run_options(asked), **others)

        for name in reversed(names):
            command = RUN_OPTIONS[name](command)
        return command

    return decorate


def run_date_option(
    *names: str, required: bool = False, help_text: str | None = None
) -> Callable[[Command], Command]:
    """Return the decorator that adds --run-date, or the option `names`."""
    cut_off = "Knowledge cut-off: only events before its midnight (UTC) are read."
    default = cut_off if required else f"{cut_off} Default: the day after the last event."
    return click.option(
        *(names or ("--run-date",)), callback=_run_date, required=required, help=help_text or default
    )


def _run_date(_: click.Context, __: click.Parameter, value: str | None) -> date | None:
    """Return the date of an option. Raises BadParameter where it is invalid or out of range."""
    if value is None:
        return None
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r}, expected YYYY-MM-DD") from None
    last = datetime.now(timezone.utc).date() + timedelta(days=MAX_DAYS_AHEAD)
    if not FIRST_RUN_DATE <= day <= last:
        raise click.BadParameter(f"{day}, expected a date from {FIRST_RUN_DATE} to {last}, a year from today")
    return day


def _as_run_options(asked: dict[str, Any]) -> RunOptions:
    # Imported here, because `--help` does not need Spark.
    from allmrec.runtime.context import RunOptions

    if "override" in asked:
        asked["override"] = frozenset(asked["override"])
    return RunOptions(**asked)


class OfUser(click.Command):
    """A command about a user, whose id may begin with a hyphen."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. The error for an unknown option shows how to write an id."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            word = next((one for one in given if one.startswith(error.option_name)), error.option_name)
            advice = f"an id that begins with a hyphen comes after --: {ctx.command_path} -- {word}."
            message = f"No such option: {error.option_name}; {advice}"
            raise click.NoSuchOption(error.option_name, message, error.possibilities, ctx) from None
