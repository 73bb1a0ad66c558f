"""`allmrec …`: every step for a person at a terminal. The jobs for spark-submit call the same commands."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click
from pyspark.errors import PySparkException
from rich.console import Console

from allmrec.config import Config, load
from allmrec.errors import SetupError, UserError
from allmrec.runtime.context import Context, day_after_last_event
from allmrec.tables.session import create_session

OUT = Console(width=None if sys.stdout.isatty() else 120)
"""For people: a terminal's own width, 120 characters in a file or pipe."""
LOG = Console(stderr=True, soft_wrap=True, highlight=False)


class _Commands(click.Group):
    """A group whose commands end with one line and exit code 1 on a mistake the user can mend."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            _fail(str(error))
        except PySparkException as error:
            _fail(f"Spark: {' '.join(str(error).split())[:1000]}")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _fail(
                f"no space left on the disk ({error.filename or 'unknown file'}); free some, then run the same command again"
            )


def _fail(message: str) -> None:
    LOG.print(f"error: {message}", style="red", markup=False)
    sys.exit(1)


def _report(line: str) -> None:
    LOG.print(f"{datetime.now():%H:%M:%S} {line}", markup=False)


def _run_date(_: click.Context, __: click.Parameter, value: str | None) -> date | None:
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r}, expected YYYY-MM-DD") from None


def configured(run_date: str = "optional") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command --config, --set and --run-date, and pass it a `Config` (and the date) instead."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(config: tuple[str, ...], overrides: tuple[str, ...], **rest: Any) -> None:
            function(load(config, overrides), **rest)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]
        if run_date != "none":
            help_text = "Knowledge cut-off: no event at or after its midnight (UTC) is read." + (
                "" if run_date == "required" else " Default: the day after the last event."
            )
            command = click.option(
                "--run-date", callback=_run_date, required=run_date == "required", help=help_text
            )(command)
        command = click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Overrides one setting; may be repeated.",
        )(command)
        return click.option(
            "--config",
            multiple=True,
            metavar="FILE",
            help="YAML overlay on the defaults; may be repeated, later ones win.",
        )(command)

    return decorate


def _context(config: Config, name: str) -> Context:
    return Context(create_session(config.spark, f"allmrec {name}"), config, _report)


@click.group(cls=_Commands)
@click.version_option(package_name="allmrec")
def cli() -> None:
    """A-LLMRec as a nightly batch recommender on Spark and Delta."""


@cli.command()
@configured("none")
def demo(config: Config) -> None:
    """Generate the demo shop, train, run a night, and show what three users get."""
    from allmrec.steps.demo import run_demo

    run_demo(_context(config, "demo"), OUT)


@cli.group("import")
def import_group() -> None:
    """Read files into the `interactions` and `items` tables; twice changes nothing."""


@import_group.command("files")
@click.option("--interactions", required=True, help="CSV, JSON lines, Parquet or Delta.")
@click.option("--items", required=True, help="CSV, JSON lines, Parquet or Delta.")
@click.option("--users", help="Optional list of users, for those without an event yet.")
@configured("none")
def import_files(config: Config, interactions: str, items: str, users: str | None) -> None:
    """Any CSV, JSON lines, Parquet or Delta, by the column mapping `importing.columns`."""
    from allmrec.steps.importing import import_files

    import_files(_context(config, "import"), interactions, items, users)


@import_group.command("amazon")
@click.option("--reviews", help="Original review file (2014 or 2018), .json or .json.gz.")
@click.option("--metadata", help="Original metadata file of the same category.")
@configured("none")
def import_amazon(config: Config, reviews: str | None, metadata: str | None) -> None:
    """Amazon reviews and metadata in their original form."""
    from allmrec.steps.importing import import_amazon

    import_amazon(_context(config, "import"), reviews, metadata)


@import_group.command("movielens")
@click.option("--folder", required=True, help="Unpacked release: 100k, 1M, or one of the CSV releases.")
@configured("none")
def import_movielens(config: Config, folder: str) -> None:
    """A MovieLens release in its original form."""
    from allmrec.steps.importing import import_movielens

    import_movielens(_context(config, "import"), folder)


def _dated(context: Context, run_date: date | None) -> date:
    return run_date or day_after_last_event(context)


@cli.command()
@configured()
def sequences(config: Config, run_date: date | None) -> None:
    """interactions → user_sequences as of the run date."""
    from allmrec.steps.sequences import run_sequences

    run_sequences(context := _context(config, "sequences"), _dated(context, run_date))


@cli.command()
@configured()
def candidates(config: Config, run_date: date | None) -> None:
    """user_sequences → candidates."""
    from allmrec.steps.candidates import run_candidates

    run_candidates(context := _context(config, "candidates"), _dated(context, run_date))


@cli.command()
@configured()
def score(config: Config, run_date: date | None) -> None:
    """candidates → recommendations."""
    from allmrec.steps.score import run_score

    run_score(context := _context(config, "score"), _dated(context, run_date))


@cli.command()
@configured()
def publish(config: Config, run_date: date | None) -> None:
    """recommendations → email_recommendations and feed_recommendations."""
    from allmrec.steps.publish import run_publish

    run_publish(context := _context(config, "publish"), _dated(context, run_date))


@cli.command()
@configured()
def train(config: Config, run_date: date | None) -> None:
    """interactions, items → a model bundle trained on events before the run date."""
    from allmrec.steps.train import run_train

    run_train(context := _context(config, "train"), _dated(context, run_date))


@cli.command()
@configured("required")
def nightly(config: Config, run_date: date) -> None:
    """sequences → candidates → score → publish for one date; finished steps are skipped."""
    from allmrec.steps.nightly import run_nightly

    run_nightly(_context(config, "nightly"), run_date)


@cli.command()
@click.option("--from", "first", callback=_run_date, required=True, help="First run date.")
@click.option("--to", "last", callback=_run_date, required=True, help="Last run date, included.")
@configured("none")
def backfill(config: Config, first: date, last: date) -> None:
    """The nightly run for every date of a range, in order."""
    from allmrec.steps.nightly import run_backfill

    run_backfill(_context(config, "backfill"), first, last)


@cli.command()
@configured()
def evaluate(config: Config, run_date: date | None) -> None:
    """Leave-one-out evaluation of the newest evaluation bundle; --run-date, where given, must be the bundle's cut-off."""
    from allmrec.steps.evaluate import run_evaluate

    click.echo(run_evaluate(_context(config, "evaluate"), run_date))


@cli.command()
@click.argument("user")
@configured()
def show(config: Config, user: str, run_date: date | None) -> None:
    """One user's history, recommendations with their parts, and the candidates that lost. Default date: the newest night."""
    from allmrec.steps.show import latest_run_date, user_night

    context = _context(config, "show")
    OUT.print(user_night(context, user, run_date or latest_run_date(context)))


@cli.command()
@configured("none")
def doctor(config: Config) -> None:
    """Check Java, Spark, Delta, Python workers, GPU and model folders, and say what is wrong."""
    from allmrec.steps.doctor import checks

    found = checks(config)
    for check in found:
        OUT.print(
            f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.found}"
            + ("" if check.ok else f"; {check.advice}"),
            markup=False,
            highlight=False,
        )
    if not all(check.ok for check in found):
        raise SetupError(f"{sum(not check.ok for check in found)} of {len(found)} checks failed")


def main(*command: str) -> None:
    """Run `allmrec <command> <the process's arguments>`: what the jobs for spark-submit call."""
    cli.main([*command, *sys.argv[1:]], prog_name=Path(sys.argv[0]).name)
