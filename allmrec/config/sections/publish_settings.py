"""Settings of the e-mail and feed tables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from allmrec.config.sections.rule_settings import RuleConfig, require_consistent, require_lasting
from allmrec.config.sections.section import Count, Fraction, Section, Text, without_repetition

ARMS = ("control", "served", "without_llm", "cf")
"""The arms that an experiment may have."""


class PublishConfig(Section):
    """The e-mail and feed tables."""

    email_slots: Count = 5
    """Slots per e-mail."""
    feed_slots: Count = 10
    """Slots per feed, the best available items of `recommendations`."""
    diversity: Fraction = 0.2
    """Weight of variety against relevance in e-mails. 0: the best items; 1: the items that are least alike by
    their texts."""
    duplicate_above: Fraction = 0.9
    """Two items with a larger cosine of their texts are near-duplicates, and so are two with nearly the same
    title. The worse one is in an e-mail only if its slots cannot be filled otherwise. One title is never
    there twice."""
    max_per: dict[Text, Count] = {"category": 2}
    """Maximum number of e-mail slots with the same value of a column, while other items are left, such as
    `{category: 2, brand: 2}`: `category` is the leaf category, another name a column of the table of items.
    An item without a value counts by itself."""
    not_again_days: Annotated[int, Field(ge=0)] = 0
    """An item that a user's e-mail had on one of so many days before the run date comes after the others, the
    longest ago first, unless these break `max_per` or are near-duplicates; 0: e-mails may repeat. Set it
    where every night's e-mails are sent; raise `candidates.num_candidates` and `scoring.top_k` with it."""
    feed_not_again_days: Annotated[int, Field(ge=0)] = 0
    """The same for feeds."""
    not_like_last_days: Annotated[int, Field(ge=0)] = 0
    """What a user bought in so many days before the run date puts items of its leaf category, and
    near-duplicates of it (`duplicate_above`), behind the others in e-mails and feeds; in e-mails they come
    only before near-duplicates, even if the others break `max_per`. 0: bought items put nothing back."""
    item_columns: Annotated[tuple[Text, ...], without_repetition("publish.item_columns")] = ()
    """Columns of the table `items`, named as that table names them, that every slot repeats as texts, such as
    `[price, url, image]`."""
    recipients: Text | None = None
    """Condition in SQL on the table of users, with the names of that table, such as `newsletter`. Only users
    who meet it get an e-mail; the others keep recommendations and feed. null: everybody."""
    rules: tuple[RuleConfig, ...] = ()
    """Rules, such as `{name: no_gift_cards, kind: exclude, where: "brand = 'Gift'"}`
    ([all kinds](#rules-on-items-and-users)). `tables.rules` may have more. An excluded item keeps its
    events in histories; `tables.items.where` removes it from histories too."""
    arms: dict[Text, Fraction] = {}
    """Shares of the users by arm of an experiment, such as `{control: 0.1, without_llm: 0.45, served: 0.45}`.
    `served` gets the night's order, `without_llm` that of the blend without the LLM, `cf` that of the CF
    model, `control` neither e-mail nor slots of a feed. A user stays in an arm from night to night. Empty: no
    experiment."""
    arms_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the draw of arms. Another one draws all users anew, for the next experiment."""

    @model_validator(mode="after")
    def _check_rules(self) -> PublishConfig:
        require_lasting("publish.recipients", self.recipients)
        require_consistent(self.rules, self.email_slots)
        return self

    @model_validator(mode="after")
    def _check_arms(self) -> PublishConfig:
        for name in self.arms:
            if name not in ARMS:
                raise ValueError(f"publish.arms.{name}: unknown arm, expected some of {', '.join(ARMS)}")
        total = sum(self.arms.values())
        if self.arms and abs(total - 1) > 1e-9:
            raise ValueError(f"publish.arms: shares of {total:g} together, expected 1; change one of them")
        return self
