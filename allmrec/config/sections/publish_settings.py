"""Settings of the e-mail and feed tables."""

from __future__ import annotations

from allmrec.config.sections.section import Count, Section


class PublishConfig(Section):
    """The e-mail and feed tables."""

    email_slots: Count = 5
    """Slots per e-mail."""
    max_per_category: Count = 2
    """Maximum number of e-mail slots per leaf category while other categories are left."""
