"""`allmrec …`: every step as a command. The jobs for spark-submit call the same.

A command imports its step when it runs, so that help and mistakes in the options need only click.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import date, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from allmrec.data.importers import IMPORTERS, Importer
from allmrec.errors import SetupError, UserError
from allmrec.json_lines import JsonStream
from allmrec.options import OfUser, asked_for_json, configured, run_date_option, run_options
from allmrec.packages import missing_package
from allmrec.reporting import Report, Screen
from allmrec.spark.spark_log import end_of, spark_log

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from rich.console import Console

    from allmrec.config import Config, SparkConfig
    from allmrec.runtime.context import Context, RunOptions

FILE = click.Path(dir_okay=False, writable=True, path_type=Path)
"""Type of a file to write."""
SPARK_LOG_LINES = 30
"""Number of lines of Spark's log that are shown after an unexpected error."""


@cache
def out() -> Console:
    """Return the console of results, 120 characters wide in a file or pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)


@cache
def log() -> Console:
    """Return the console of progress and errors."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False)


class _Commands(click.Group):
    """A group whose commands end with one line and exit code.

    2 is a mistake in options, configuration or set-up, 3 are wrong data or a broken gate, 4 is a failure that
    passes by itself; 1 is a defect of the program, with its traceback.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command of the arguments, and end the process.

        A mistake in the arguments is one line. With `reporting.json_lines` every line of standard error is
        JSON from here to the end of the process.
        """
        if asked_for_json(sys.argv[1:] if args is None else args):
            sys.stderr = JsonStream(sys.stderr)
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            sys.exit(super().main(args, prog_name, complete_var, standalone_mode=False, **extra))
        except click.UsageError as error:
            line = error.format_message()
            if "\n" in line:  # the help of a group without a command
                error.show()
                sys.exit(error.exit_code)
            advice = f"; see {error.ctx.command_path} --help" if error.ctx else ""
            _end(f"{line.rstrip('.')}{advice}", error.exit_code)
        except click.ClickException as error:
            _end(error.format_message(), error.exit_code)
        except click.Abort:
            _end("aborted", 1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises defects of the program, after the end of Spark's log."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            known = _as_user_error(error)
            if known is not error:
                _show_spark_log(_report())
            if known is not None:
                _end(str(known), known.exit_code)
            raise


def _as_user_error(error: Exception) -> UserError | None:
    """Return an error as one of one line. None for a defect of the program."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    # Without pyspark no error is Spark's.
    with suppress(ModuleNotFoundError):
        from allmrec.spark.troubles import as_user_error

        return as_user_error(error)
    return None


def _end(line: str, exit_code: int) -> NoReturn:
    """Print the error as the last line and exit."""
    if isinstance(sys.stderr, JsonStream):
        _report().of(level="error", exit_code=str(exit_code))(line)
    else:
        log().print(f"error: {line}", style="red", markup=False)
    sys.exit(exit_code)


def _show_spark_log(report: Report) -> None:
    """Show the end of Spark's log (see `allmrec.spark.spark_log`)."""
    path = spark_log()
    if path is not None and path.is_file():
        report(f"the end of Spark's log, {path}:")
        for line in end_of(path, SPARK_LOG_LINES):
            report(f"  {line}")


def _report() -> Report:
    """Return the report of a command: live, as lines or as JSON."""
    if isinstance(sys.stderr, JsonStream):
        return Report(lambda line: print(line, file=sys.stderr, flush=True), as_json=True)
    console = log()
    return Report(
        lambda line: console.print(f"{_time(console.is_terminal)} {line}", markup=False),
        Screen(console) if console.is_terminal else None,
    )


def _time(is_terminal: bool) -> str:
    """Return the time of a line. Files are read later and elsewhere, so that theirs has date and zone."""
    now = datetime.now().astimezone()
    return f"{now:%H:%M:%S}" if is_terminal else now.isoformat(sep=" ", timespec="seconds")


def create_session(config: SparkConfig, app_name: str) -> SparkSession:
    """Return the running Spark session, or start one; see `allmrec.spark.session`."""
    # Imported here, because `--help` does not need Spark.
    from allmrec.spark import session

    return session.create_session(config, app_name)


def _context(config: Config, name: str, options: RunOptions | None = None) -> Context:
    from allmrec.runtime.context import Context, RunOptions

    report = _report()
    # A first start downloads Delta's JARs, so that a terminal shows the wait.
    with report.screen.task("start Spark") if report.screen else nullcontext():
        session = create_session(config.spark, f"allmrec {name}")
    return Context.open(session, config, report, options or RunOptions())


@click.group(cls=_Commands)
@click.version_option(package_name="allmrec")
def cli() -> None:
    """A-LLMRec as a nightly batch recommender on Spark and Delta."""


@cli.command()
@configured
def demo(config: Config) -> None:
    """Generate the demo shop, train, run a night, show three users' lists."""
    from allmrec.steps.demo import run_demo

    with _context(config, "demo") as context:
        run_demo(context, out())


def import_group(importers: Mapping[str, Importer]) -> click.Group:
    """Return `allmrec import`, with one command per importer."""
    purpose = "Read files into the `interactions` and `items` tables; a repeated import changes nothing."
    commands = {name: _import_command(name, importer) for name, importer in importers.items()}
    return click.Group("import", commands, help=purpose)


def _import_command(name: str, importer: Importer) -> click.Command:
    @configured
    def command(config: Config, **paths: str | None) -> None:
        from allmrec.steps.importing import run_import

        given = {option: path for option, path in paths.items() if path is not None}
        with _context(config, "import") as context:
            run_import(context, importer, given)

    for option in reversed(importer.options):
        command = click.option(f"--{option.name}", required=option.required, help=option.help)(command)
    return click.command(name, help=importer.help)(command)


cli.add_command(import_group(IMPORTERS))


STEPS = {
    "sequences": ("interactions → user_sequences as of the run date.", ("force", "refresh")),
    "candidates": ("user_sequences → candidates.", ("force",)),
    "score": ("candidates → recommendations.", ("force", "full", "max_minutes", "override")),
    "publish": (
        "recommendations → email_recommendations and feed_recommendations.",
        ("force", "override"),
    ),
    "train": (
        "interactions, items → a model bundle trained on events before the run date.",
        ("force", "refresh"),
    ),
}
"""Steps of one run date, their purposes and options.

`allmrec <step>` calls `run_<step>` of `allmrec.steps.<step>`.
"""


def _add_step(name: str, purpose: str, options_of_step: tuple[str, ...]) -> None:
    @cli.command(name, help=purpose)
    @configured
    @run_options(*options_of_step)
    @run_date_option()
    def command(config: Config, run_date: date | None, options: RunOptions) -> None:
        from allmrec.runtime.inputs import Inputs, day_after_last_event
        from allmrec.runtime.night import Night

        run_step = getattr(import_module(f"allmrec.steps.{name}"), f"run_{name}")
        with _context(config, name, options) as context:
            day = run_date or day_after_last_event(Inputs.newest(context))
            run_step(Night(context, day).with_new_run())


for _name, (_purpose, _options) in STEPS.items():
    _add_step(_name, _purpose, _options)


@cli.command()
@configured
@run_options("force", "refresh", "full", "max_minutes", "override")
@run_date_option(required=True)
def nightly(config: Config, run_date: date, options: RunOptions) -> None:
    """Run sequences → candidates → score → publish for one date. Finished steps are skipped."""
    from allmrec.steps.nightly import run_nightly

    with _context(config, "nightly", options) as context:
        run_nightly(context, run_date)


@cli.command()
@run_date_option("--from", "first", required=True, help_text="First run date.")
@run_date_option("--to", "last", required=True, help_text="Last run date, included.")
@configured
@run_options("force", "refresh", "full", "max_minutes", "override")
def backfill(config: Config, first: date, last: date, options: RunOptions) -> None:
    """The nightly run for every date of a range, in order."""
    from allmrec.steps.nightly import run_backfill

    with _context(config, "backfill", options) as context:
        run_backfill(context, first, last)


@cli.command()
@configured
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and write nothing.")
def maintain(config: Config, dry_run: bool) -> None:
    """Delete unneeded dates, bundles and snapshots, compact and vacuum the tables."""
    from allmrec.steps.maintain import run_maintain

    with _context(config, "maintain") as context:
        for line in run_maintain(context, dry_run) or ["nothing to remove"]:
            click.echo(line)


@cli.command(cls=OfUser)
@click.argument("user")
@configured
def forget(config: Config, user: str) -> None:
    """Erase a user from tables, rejected rows, snapshots and caches. Print what remains."""
    from allmrec.steps.forget import run_forget

    with _context(config, "forget") as context:
        for line in run_forget(context, user):
            click.echo(line)


@cli.command("export")
@click.argument("table", type=click.Choice(["email", "feed"]))
@configured
@run_date_option(help_text="The published night. Default: the newest one, also where tonight's failed.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    default="csv",
    show_default=True,
    help="CSV is for spreadsheets: texts that begin with = + - @, a tab or a line break get an apostrophe in "
    "front, ids and titles too; numbers such as -5 stay. The other forms have every text as it is.",
)
@click.option(
    "--per", type=click.Choice(["slot", "user"]), default="slot", show_default=True, help="What a row is."
)
@click.option("--out", required=True, type=FILE, help="A local file; replaced when the new one is complete.")
def export_rows(config: Config, table: str, run_date: date | None, form: str, per: str, out: Path) -> None:
    """Write a published night's e-mails or feeds into a file for a mailing tool."""
    from allmrec.steps.export import Export, run_export

    with _context(config, "export") as context:
        for line in run_export(context, run_date, Export(table, form, per, out)):
            click.echo(line)


@cli.command("runs")
@configured
@run_date_option(help_text="The night in detail. Default: the newest.")
@click.option("--last", type=click.IntRange(min=1), default=10, show_default=True, help="Number of nights.")
def show_runs(config: Config, run_date: date | None, last: int) -> None:
    """Print the nights: counts, sources, fallbacks, gates and durations."""
    from allmrec.views.nights import nights

    with _context(config, "runs") as context:
        out().print(nights(context, run_date, last))


@cli.command()
@configured
@click.option("--html", type=FILE, help="A page to write.")
@run_date_option()
def evaluate(config: Config, run_date: date | None, html: Path | None) -> None:
    """Evaluate the newest evaluation bundle by every user's held-out last item.

    --run-date, if given, must be the bundle's cut-off.
    """
    from allmrec.steps.evaluate import run_evaluate

    with _context(config, "evaluate") as context:
        click.echo(run_evaluate(context, run_date, html))


@cli.command()
@click.argument("first")
@click.argument("second")
@configured
def compare(config: Config, first: str, second: str) -> None:
    """Compare two evaluated bundles, SECOND against FIRST, by the same users.

    A bundle is an id, or id/condition, such as 0123456789abcdef/missing_text.
    """
    from allmrec.views.compared_bundles import compared_bundles

    with _context(config, "compare") as context:
        click.echo(compared_bundles(context, first, second))


@cli.command(cls=OfUser)
@click.argument("user")
@configured
@run_date_option()
def show(config: Config, user: str, run_date: date | None) -> None:
    """Print one user's history, recommendations with their parts, and lost candidates.

    Default date: the newest night.
    """
    from allmrec.runtime.night import Night
    from allmrec.views.user_night import latest_run_date, user_night

    with _context(config, "show") as context:
        out().print(user_night(Night(context, run_date or latest_run_date(context)), user))


@cli.command()
@configured
def doctor(config: Config) -> None:
    """Check Java, Spark, Delta, Python workers, GPU and model folders, with remedies."""
    from allmrec.views.doctor import checks

    results = checks(config)
    for check in results:
        outcome = f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.finding}"
        line = outcome if check.ok or not check.advice else f"{outcome}; {check.advice}"
        out().print(line, markup=False, highlight=False)
    num_failed = sum(not check.ok for check in results)
    if num_failed:
        raise SetupError(f"{num_failed} of {len(results)} checks failed")


def main(*command: str) -> None:
    """Run `allmrec <command> <the process's arguments>`, for the jobs of spark-submit."""
    cli.main([*command, *sys.argv[1:]], prog_name=Path(sys.argv[0]).name)
