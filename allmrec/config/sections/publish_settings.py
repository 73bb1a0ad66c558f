"""Settings of the e-mail and feed tables."""

from __future__ import annotations

from typing import Annotated

from allmrec.config.sections.section import Count, Section, Text, without_repetition


class PublishConfig(Section):
    """The e-mail and feed tables."""

    email_slots: Count = 5
    """Slots per e-mail."""
    feed_slots: Count = 10
    """Slots per feed, the best available items of `recommendations`."""
    max_per_category: Count = 2
    """Maximum number of e-mail slots per leaf category while other categories are left."""
    item_columns: Annotated[tuple[Text, ...], without_repetition("publish.item_columns")] = ()
    """Columns of the table `items`, named as that table names them, that every slot repeats as texts, such as
    `[price, url, image]`."""
