"""What is judged is what is served: evaluated lists against those of a night right before the judged event.

The oracle is a second shop with the same bundle. For every user its log ends right before the event that the
evaluation holds out. Its night must write the lists that the evaluation ranks, row for row.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from allmrec.config import Config
from allmrec.night import waves
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night
from allmrec.steps import candidates, evaluate
from allmrec.steps.candidates import run_candidates
from allmrec.steps.evaluate import run_evaluate
from allmrec.steps.score import run_score
from allmrec.steps.sequences import run_sequences
from allmrec.steps.train import run_train
from allmrec.views.compared_bundles import compared_bundles
from tests.steps.additions import Heard, register, registering, unregister
from tests.steps.conftest import NewContext

pytestmark = pytest.mark.reported

CUT_OFF = dt.date(2026, 6, 1)
START = dt.datetime(2026, 1, 1)
NUM_USERS, NUM_ITEMS, MAX_HISTORY = 60, 50, 6
WEIGHED = ["cf", "text", "alignment", "llm", "popularity"]
SETTINGS = [
    f"sequences.max_history={MAX_HISTORY}",
    "sequences.event_types=[purchase]",
    "sequences.min_rating=3",
    f"training.blend_parts={json.dumps(WEIGHED)}",
    "training.held_back_share=0.5",
    "training.blend_llm_users=30",
    "candidates.num_candidates=15",
    "scoring.active_within_days=null",
    "evaluation.protocols=[retrieved, catalogue]",
    "evaluation.num_sampled_users=null",
    "gates.max_rejected_share=null",
    "gates.max_forbidden_items=0",
]
Event = tuple[str, str | None, dt.datetime, float | None, str | None]


def random_log(seed: int) -> list[Event]:
    """Purchases that count, and rows that do not: views, low and impossible ratings, repeats, unknown items.

    What is bought was often viewed before, at the same moment, or after. Purchases of a user are never at one
    time, so that their order needs no rule.
    """
    rng, log = random.Random(seed), list[Event]()
    for number in range(NUM_USERS):
        user, time = f"u{number:03d}", START + dt.timedelta(hours=rng.randrange(500))
        taste = rng.sample(range(NUM_ITEMS), 12)
        for _ in range(rng.choice([1, 2, 3, 5, 9, 14])):
            time += dt.timedelta(minutes=rng.randrange(1, 4000))
            item = f"i{rng.choice(taste):02d}"
            log.append((user, item, time, rng.choice([None, 3.0, 5.0]), "purchase"))
            before, after = (dt.timedelta(minutes=sign * rng.randrange(1, 3000)) for sign in (-1, 1))
            around = rng.choice([before, dt.timedelta(), after])
            kind = rng.choice(["view", "low", "impossible", "none", "none"])
            if kind == "view":
                log.append((user, item, time + around, None, "view"))
            if kind in ("low", "impossible"):
                log.append((user, item, time + around, 1.0 if kind == "low" else 99.0, "purchase"))
            if rng.random() < 0.2:
                log.append((user, f"i{rng.randrange(NUM_ITEMS):02d}", time + around, None, "view"))
        log.append(log[-1])
        log.append((user, "gone", time - dt.timedelta(minutes=1), None, "purchase"))
        log.append((user, None, time - dt.timedelta(minutes=2), None, "purchase"))
    return log


def counts(event: Event) -> bool:
    """Whether an event is part of a sequence under SETTINGS."""
    _, item, _, rating, kind = event
    is_good = item not in (None, "gone") and (rating is None or 3 <= rating <= 10)
    return is_good and kind == "purchase"


def before_the_last(log: list[Event]) -> tuple[list[Event], dict[str, str | None]]:
    """The log up to every user's last event that counts, and the items of these events."""
    lasts: dict[str, Event] = {}
    for event in log:
        if counts(event) and (event[0] not in lasts or event[2] > lasts[event[0]][2]):
            lasts[event[0]] = event
    kept = [event for event in log if event[2] < lasts[event[0]][2]]
    targets = {user: last[1] for user, last in lasts.items()}
    return kept, {
        user: item for user, item in targets.items() if any(counts(e) for e in kept if e[0] == user)
    }


def write_shop(context: Context, log: list[Event]) -> None:
    """Write the tables of log and catalogue; every ninth item is unavailable."""
    kinds = "user_id string, item_id string, event_time timestamp, rating double, event_type string"
    items = [
        (f"i{n:02d}", f"{('red', 'blue', 'green')[n % 3]} tent {n}", None, ["a"], n % 9 != 0, None)
        for n in range(NUM_ITEMS)
    ]
    columns = "item_id string, title string, description string, categories array<string>"
    frames = {
        "interactions": context.spark.createDataFrame(log, kinds),
        "items": context.spark.createDataFrame(items, f"{columns}, available boolean, updated_at timestamp"),
    }
    for name, frame in frames.items():
        frame.coalesce(1).write.format("delta").save(context.tables.path(name))


class Judged(NamedTuple):
    """What the evaluation ranked and what the night before wrote, by user."""

    predictions: pd.DataFrame
    night: pd.DataFrame
    candidates: dict[str, list[str]]
    sources: dict[str, list[str]]
    targets: dict[str, str | None]
    recall: float
    report: str
    shop: Context
    bundle_id: str


def judged(new_context: NewContext, folder: Path, *overrides: str) -> Judged:
    """Train, evaluate, and run the night of the second shop."""
    settings = (*SETTINGS, *overrides)
    log = random_log(4)
    shop = new_context(folder / "shop" / "tables", *settings, "training.purpose=evaluation")
    write_shop(shop, log)
    bundle_id = run_train(Night(shop, CUT_OFF))
    report = run_evaluate(shop, None, folder / "page.html")
    root = folder / "shop" / "night"
    context = new_context(root, *settings, f"bundle.id={bundle_id}")
    kept, targets = before_the_last(log)
    write_shop(context, kept)
    shutil.copytree(folder / "shop" / "tables" / "_bundles", root / "_bundles")
    night = Night(context, CUT_OFF).with_new_run()
    for step in (run_sequences, run_candidates, run_score):
        step(night)
    retrieved = context.tables.read("candidates").collect()
    blend = json.loads((root / "_bundles" / bundle_id / "blend.json").read_text())
    return Judged(
        shop.tables.read("evaluation_predictions").toPandas(),
        context.tables.read_date("recommendations", CUT_OFF).toPandas(),
        {row["user_id"]: row["item_ids"] for row in retrieved},
        {row["user_id"]: row["sources"] for row in retrieved},
        targets,
        blend["without_llm"]["recall"],
        report,
        shop,
        bundle_id,
    )


def check(found: Judged) -> None:
    """Hold every list of the evaluation against the night's."""
    retrieved = found.predictions[found.predictions["protocol"] == "retrieved"]
    served = retrieved[retrieved["model"] == "served"].set_index("user_id")
    assert set(served.index) == set(found.targets)
    night = found.night.sort_values("rank").groupby("user_id")["item_id"].agg(list)
    num_found = 0
    for user, row in served.iterrows():
        assert row["target"] == found.targets[str(user)]
        assert list(row["candidates"]) == found.candidates[str(user)]
        ordered = [item for _, item in sorted(zip(row["ranks"], row["candidates"], strict=True))]
        assert ordered[: Config().scoring.top_k] == night[user]
        num_found += row["target"] in found.candidates[str(user)]
    assert served["target_rank"].notna().sum() == num_found > 0
    # A target that a night leaves out is in no list of the catalogue either.
    catalogue = found.predictions[found.predictions["protocol"] == "catalogue"]
    for row in catalogue.itertuples():
        assert (row.target in row.candidates) == (not pd.isna(row.target_rank))
    hidden = set(catalogue[catalogue["target_rank"].isna()]["user_id"])
    assert hidden
    assert not hidden & set(served.index[served["target_rank"].notna()])
    [line] = [line for line in found.report.splitlines() if line.startswith("A list can hold")]
    assert f"of {len(served) - len(hidden)} of {len(served)} users" in line


@pytest.mark.parametrize("overrides", [("sequences.repeats=keep",)])
def test_the_lists_that_are_evaluated_are_those_of_the_night_before(
    new_context: NewContext, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    check(judged(new_context, tmp_path, *overrides))


@pytest.mark.long
@pytest.mark.parametrize(
    "overrides",
    [("sequences.repeats=fold",), ("scoring.order=cf",), ("scoring.order=llm", "scoring.llm_candidates=4")],
)
def test_they_are_under_other_settings(
    new_context: NewContext, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    check(judged(new_context, tmp_path, *overrides))


def test_they_are_with_one_of_each_thing_that_can_be_added(
    new_context: NewContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "retrieving", registering(candidates.retrieving))
    monkeypatch.setattr(evaluate, "ranking", registering(evaluate.ranking))
    monkeypatch.setattr(waves, "scoring", registering(waves.scoring))
    register()
    try:
        # No other test has this number, so that no worker keeps a retriever of another one.
        found = judged(
            new_context,
            tmp_path,
            "candidates.num_candidates=14",
            "scoring.rerankers=[reversed]",
            "reporting.listeners=[heard]",
        )
        compared = compared_bundles(found.shop, found.bundle_id, found.bundle_id)
    finally:
        unregister()
    check(found)
    lists = found.night.sort_values("rank").groupby("user_id")
    assert not lists["score"].agg(lambda scores: scores.is_monotonic_decreasing).all()
    assert (lists["rank"].agg(list) == lists["rank"].agg(lambda ranks: list(range(1, len(ranks) + 1)))).all()
    sources = [source for of_user in found.sources.values() for source in of_user]
    assert sources.count("newest") == 2 * len(found.sources)
    html = (tmp_path / "page.html").read_text()
    for words in (found.report, html, compared):
        assert "lateness" in words
        assert "earliness" in words
    models = found.predictions.groupby("protocol")["model"].agg(set)
    assert all({"late", "early"} <= of_protocol for of_protocol in models)
    steps = ("train", "evaluate", "sequences", "candidates", "score")
    assert Heard.rows == [(step, status) for step in steps for status in ("started", "done")]
