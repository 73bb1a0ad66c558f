"""The demo: generate the shop, import it, train, run a night, and show what three customers get."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from pyspark.sql import functions as F
from rich.console import Console

from allmrec.demo.generator import write_shop
from allmrec.runtime.context import Context
from allmrec.steps.importing import import_files
from allmrec.steps.nightly import run_nightly
from allmrec.steps.show import user_night
from allmrec.steps.train import run_train

LAST_DAY = date(2026, 5, 31)
"""The shop's last day with events; fixed, so that every demo is the same."""
RUN_DATE = LAST_DAY + timedelta(days=1)
TRAINED_BEFORE = RUN_DATE - timedelta(days=3)


def run_demo(context: Context, out: Console, num_users: int = 2000, num_items: int = 800) -> None:
    """Run everything from generated files to e-mail tables; what is there already is skipped."""
    folder = Path(context.config.tables.root) / "_shop"
    if not folder.is_dir():
        context.report(
            f"demo: generate a shop with {num_users:,} customers and {num_items:,} items in {folder}"
        )
        write_shop(folder, num_users, num_items, seed=context.config.seed, last_day=LAST_DAY)
    context.report("demo: import the shop's files; bad rows go to rejected_rows with a reason")
    import_files(
        context, str(folder / "interactions.csv"), str(folder / "items.jsonl"), str(folder / "users.csv")
    )
    run_train(context, TRAINED_BEFORE)
    run_nightly(context, RUN_DATE)
    for user in three_users(context):
        out.print(user_night(context, user, RUN_DATE))
    root, command = context.config.tables.root, f"--config conf/demo.yaml --run-date {RUN_DATE}"
    out.print(
        f"The tables lie in {root}/ (Delta): user_sequences, candidates, recommendations, email_recommendations, feed_recommendations, …",
        markup=False,
    )
    out.print("What to try next:\n"
              f"  allmrec show USER {command}\n"
              f"  allmrec nightly --config conf/demo.yaml --run-date {RUN_DATE - timedelta(days=1)}\n"
              "  your own tables: see README.md", markup=False, highlight=False)  # fmt: skip


def three_users(context: Context) -> list[str]:
    """Return a customer with a long history and the LLM's order, one with a short history and it, and one without the LLM."""
    first = (
        context.tables.read_date("recommendations", RUN_DATE).where("rank = 1").select("user_id", "source")
    )
    lengths = context.tables.read_date("user_sequences", RUN_DATE).select("user_id", "num_interactions")
    rows = first.join(lengths, "user_id")
    wanted = [
        rows.where("source = 'llm' AND num_interactions >= 8"),
        rows.where("source = 'llm' AND num_interactions BETWEEN 2 AND 5"),
        rows.where("source = 'cf' AND num_interactions >= 5"),
    ]
    picked = [frame.orderBy(F.sha2("user_id", 256)).first() for frame in wanted]
    return [row["user_id"] for row in picked if row is not None]
