"""Settings of the choice of a bundle."""

from __future__ import annotations

from allmrec.config.sections.section import Section, Text


class BundleConfig(Section):
    """The bundle that is used."""

    id: Text | None = None
    """Bundle to use; null: the newest serving bundle with `trained_before` ≤ run_date, or for an evaluation
    the newest one for evaluation."""
