"""The demo: generate, import, train, run a night, show three customers' lists."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from pyspark.sql import functions as F
from rich.console import Console

from allmrec.data.importers import IMPORTERS
from allmrec.demo.generator import write_shop
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night
from allmrec.steps.importing import run_import
from allmrec.steps.nightly import run_nightly
from allmrec.steps.train import run_train
from allmrec.views.user_night import user_night

LAST_DAY = date(2026, 5, 31)
"""The shop's last day with events, fixed so that every demo is the same."""
RUN_DATE = LAST_DAY + timedelta(days=1)
TRAINED_BEFORE = RUN_DATE - timedelta(days=3)


def run_demo(context: Context, out: Console, num_users: int = 2000, num_items: int = 800) -> None:
    """Run everything from generated files to e-mail tables; show three lists.

    Finished parts are skipped.
    """
    folder = Path(context.config.tables.root) / "_shop"
    if not folder.is_dir():
        shop = f"a shop with {num_users:,} customers and {num_items:,} items"
        context.report(f"demo: generate {shop} in {folder}")
        write_shop(folder, num_users, num_items, seed=context.config.seed, last_day=LAST_DAY)
    context.report("demo: import the shop's files; bad rows go to rejected_rows with a reason")
    import_shop(context, folder)
    run_train(Night(context, TRAINED_BEFORE))
    run_nightly(context, RUN_DATE)
    for user in three_users(context):
        out.print(user_night(Night(context, RUN_DATE), user))
    for line in what_next(context.config.tables.root):
        out.print(line, markup=False, highlight=False)


def import_shop(context: Context, folder: Path) -> None:
    """Import the files of `write_shop` in a folder."""
    files = {"interactions": "interactions.csv", "items": "items.jsonl", "users": "users.csv"}
    run_import(context, IMPORTERS["files"], {name: str(folder / file) for name, file in files.items()})


def three_users(context: Context) -> list[str]:
    """Return customers with long, with short history, and without the LLM."""
    first = (
        context.tables.read_date("recommendations", RUN_DATE).where("rank = 1").select("user_id", "source")
    )
    sequences = context.tables.read_date("user_sequences", RUN_DATE).select("user_id", "num_interactions")
    users = first.join(sequences, "user_id")
    kinds = [
        "source = 'llm' AND num_interactions >= 8",
        "source = 'llm' AND num_interactions BETWEEN 2 AND 5",
        "source = 'cf' AND num_interactions >= 5",
    ]
    examples = [users.where(kind).orderBy(F.sha2("user_id", 256)).first() for kind in kinds]
    return [example["user_id"] for example in examples if example is not None]


def what_next(root: str) -> list[str]:
    """Return lines for a terminal about what to do after the demo."""
    tables = "user_sequences, candidates, recommendations, email_recommendations, feed_recommendations"
    day_before = RUN_DATE - timedelta(days=1)
    return [
        f"The tables are in {root}/ (Delta): {tables}, …",
        "What to try next:",
        f"  allmrec show USER --config conf/demo.yaml --run-date {RUN_DATE}",
        f"  allmrec nightly --config conf/demo.yaml --run-date {day_before}",
        "  your own tables: see README.md",
    ]
