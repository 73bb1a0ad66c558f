"""`allmrec …`: every step for a person at a terminal. The jobs for spark-submit call the same commands."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from pyspark.errors import PySparkException
from rich.console import Console

from allmrec.config import Config, load
from allmrec.errors import SetupError, UserError
from allmrec.reporting import Report, Screen
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs, day_after_last_event
from allmrec.tables.session import create_session
from allmrec.tables.spark_log import spark_log

Command = Callable[..., None]

OUT = Console(width=None if sys.stdout.isatty() else 120)
"""What a command is asked for: a terminal's own width, 120 characters in a file or pipe."""
LOG = Console(stderr=True, soft_wrap=True, highlight=False)
"""What is said while it works."""
SPARK_LOG_LINES = 30
"""Lines of Spark's own log that are shown when something unexpected fails."""


class _Commands(click.Group):
    """A group whose commands end with one line and exit code 1 on a mistake the user can mend."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; raises what nobody can mend by a setting, after the end of Spark's log."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            _fail(str(error))
        except PySparkException as error:
            _show_spark_log()
            _fail(f"Spark: {' '.join(str(error).split())[:1000]}")
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                _fail(
                    f"no space left on the disk ({error.filename or 'unknown file'}); "
                    "free some, then run the same command again"
                )
            _show_spark_log()
            raise


def _fail(message: str) -> None:
    LOG.print(f"error: {message}", style="red", markup=False)
    sys.exit(1)


def _show_spark_log() -> None:
    """Show the end of what Spark wrote where a terminal does not show it (see `allmrec.tables.spark_log`)."""
    path = spark_log()
    if path is not None and path.is_file():
        LOG.print(f"the end of Spark's log, {path}:", markup=False)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-SPARK_LOG_LINES:]:
            LOG.print(f"  {line}", markup=False)


def _report() -> Report:
    """Return the report of a command: live at a terminal, lines in a file or pipe."""
    return Report(
        lambda line: LOG.print(f"{datetime.now():%H:%M:%S} {line}", markup=False),
        Screen(LOG) if LOG.is_terminal else None,
    )


def _run_date(_: click.Context, __: click.Parameter, value: str | None) -> date | None:
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r}, expected YYYY-MM-DD") from None


def configured(function: Command) -> Command:
    """Give a command --config and --set, and pass it a `Config` instead."""

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
        help="Overrides one setting; may be repeated.",
    )
    @functools.wraps(function)
    def command(config: tuple[str, ...], overrides: tuple[str, ...], **others: Any) -> None:
        function(load(config, overrides), **others)

    return command


def run_date_option(required: bool = False) -> Callable[[Command], Command]:
    """Return the decorator that gives a command --run-date, a date."""
    cut_off = "Knowledge cut-off: no event at or after its midnight (UTC) is read."
    help_text = cut_off if required else f"{cut_off} Default: the day after the last event."
    return click.option("--run-date", callback=_run_date, required=required, help=help_text)


def _context(config: Config, name: str) -> Context:
    report = _report()
    # A first start fetches Delta's JARs: at a terminal somebody waits for it.
    with report.screen.task("start Spark") if report.screen else nullcontext():
        session = create_session(config.spark, f"allmrec {name}")
    return Context.open(session, config, report)


@click.group(cls=_Commands)
@click.version_option(package_name="allmrec")
def cli() -> None:
    """A-LLMRec as a nightly batch recommender on Spark and Delta."""


@cli.command()
@configured
def demo(config: Config) -> None:
    """Generate the demo shop, train, run a night, and show what three users get."""
    from allmrec.steps.demo import run_demo

    with _context(config, "demo") as context:
        run_demo(context, OUT)


@cli.group("import")
def import_group() -> None:
    """Read files into the `interactions` and `items` tables; twice changes nothing."""


@import_group.command("files")
@click.option("--interactions", required=True, help="CSV, JSON lines, Parquet or Delta.")
@click.option("--items", required=True, help="CSV, JSON lines, Parquet or Delta.")
@click.option("--users", help="Optional list of users, for those without an event yet.")
@configured
def import_files(config: Config, interactions: str, items: str, users: str | None) -> None:
    """Any CSV, JSON lines, Parquet or Delta, by the column mapping `importing.columns`."""
    from allmrec.steps.importing import import_files

    with _context(config, "import") as context:
        import_files(context, interactions, items, users)


@import_group.command("amazon")
@click.option("--reviews", help="Original review file (2014 or 2018), .json or .json.gz.")
@click.option("--metadata", help="Original metadata file of the same category.")
@configured
def import_amazon(config: Config, reviews: str | None, metadata: str | None) -> None:
    """Amazon reviews and metadata in their original form."""
    from allmrec.steps.importing import import_amazon

    with _context(config, "import") as context:
        import_amazon(context, reviews, metadata)


@import_group.command("movielens")
@click.option("--folder", required=True, help="Unpacked release: 100k, 1M, or one of the CSV releases.")
@configured
def import_movielens(config: Config, folder: str) -> None:
    """A MovieLens release in its original form."""
    from allmrec.steps.importing import import_movielens

    with _context(config, "import") as context:
        import_movielens(context, folder)


STEPS = {
    "sequences": "interactions → user_sequences as of the run date.",
    "candidates": "user_sequences → candidates.",
    "score": "candidates → recommendations.",
    "publish": "recommendations → email_recommendations and feed_recommendations.",
    "train": "interactions, items → a model bundle trained on events before the run date.",
}
"""Steps of one run date, and what they do: `allmrec <step>` calls `run_<step>` of `allmrec.steps.<step>`."""


def _add_step(name: str, purpose: str) -> None:
    @cli.command(name, help=purpose)
    @configured
    @run_date_option()
    def command(config: Config, run_date: date | None) -> None:
        run_step = getattr(import_module(f"allmrec.steps.{name}"), f"run_{name}")
        with _context(config, name) as context:
            run_step(context, run_date or day_after_last_event(Inputs.newest(context)))


for _name, _purpose in STEPS.items():
    _add_step(_name, _purpose)


@cli.command()
@configured
@run_date_option(required=True)
def nightly(config: Config, run_date: date) -> None:
    """Run sequences → candidates → score → publish for one date; finished steps are skipped."""
    from allmrec.steps.nightly import run_nightly

    with _context(config, "nightly") as context:
        run_nightly(context, run_date)


@cli.command()
@click.option("--from", "first", callback=_run_date, required=True, help="First run date.")
@click.option("--to", "last", callback=_run_date, required=True, help="Last run date, included.")
@configured
def backfill(config: Config, first: date, last: date) -> None:
    """The nightly run for every date of a range, in order."""
    from allmrec.steps.nightly import run_backfill

    with _context(config, "backfill") as context:
        run_backfill(context, first, last)


@cli.command()
@configured
@run_date_option()
def evaluate(config: Config, run_date: date | None) -> None:
    """Leave-one-out evaluation of the newest evaluation bundle.

    --run-date, where given, must be the bundle's cut-off.
    """
    from allmrec.steps.evaluate import run_evaluate

    with _context(config, "evaluate") as context:
        click.echo(run_evaluate(context, run_date))


@cli.command()
@click.argument("user")
@configured
@run_date_option()
def show(config: Config, user: str, run_date: date | None) -> None:
    """One user's history, recommendations with their parts, and the candidates that lost.

    Default date: the newest night.
    """
    from allmrec.steps.show import latest_run_date, user_night

    with _context(config, "show") as context:
        OUT.print(user_night(context, user, run_date or latest_run_date(context)))


@cli.command()
@configured
def doctor(config: Config) -> None:
    """Check Java, Spark, Delta, Python workers, GPU and model folders, and say what is wrong."""
    from allmrec.steps.doctor import checks

    results = checks(config)
    for check in results:
        outcome = f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.finding}"
        OUT.print(outcome if check.ok else f"{outcome}; {check.advice}", markup=False, highlight=False)
    num_failed = sum(not check.ok for check in results)
    if num_failed:
        raise SetupError(f"{num_failed} of {len(results)} checks failed")


def main(*command: str) -> None:
    """Run `allmrec <command> <the process's arguments>`: what the jobs for spark-submit call."""
    cli.main([*command, *sys.argv[1:]], prog_name=Path(sys.argv[0]).name)
