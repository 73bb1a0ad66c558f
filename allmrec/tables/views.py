"""The view of the newest published e-mails in Spark's catalogue."""

from __future__ import annotations

from allmrec.tables.delta import Tables

LATEST = "latest_email_recommendations"


def newest_published(emails: str, runs: str) -> str:
    """Return the query of the newest published date's e-mails. Arguments are names of tables in SQL."""
    published = f"SELECT max(run_date) FROM {runs} WHERE step = 'publish' AND status = 'done'"
    return f"SELECT * FROM {emails} WHERE run_date = ({published})"


def create_latest_view(tables: Tables) -> None:
    """Create or replace the view `LATEST` in the schema of the tables' names; without a schema do nothing.

    Both tables get their names first, as at every write. Raises Spark's error where the catalogue refuses the
    view, and as `Tables.create` does.
    """
    schema = tables.schema_name
    if schema is not None:
        for name in ("email_recommendations", "runs"):
            tables.create(name)
        query = newest_published(f"{schema}.email_recommendations", f"{schema}.runs")
        tables.spark.sql(f"CREATE OR REPLACE VIEW {schema}.{LATEST} AS {query}")
