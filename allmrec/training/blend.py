"""Fit the served order's weights where they are used (design §5), on users whose held-back item no trained part has seen.

For serving: on retrieved candidates, of the users whose held-back item is among them; a night's lists are hard to tell apart.
For evaluation: on sampled negatives, as `evaluate` ranks them.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from allmrec import seeds
from allmrec.bundle import Bundle
from allmrec.config import Config
from allmrec.evaluation.leave_one_out import sample_negatives
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.blend import BlendWeights, fit_blend
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.training.loader import Snapshot


def blend_frame(bundle: Bundle, snapshot: Snapshot, config: Config) -> pd.DataFrame:
    """Return one row a blend user: user_id, history, target, candidates (target among them), cf_scores, text_scores, sources.

    Users stand in an order drawn from the seed, so that the first ones are a sample.
    """
    rows = snapshot.held_back("blend").sort_values("user_id", ignore_index=True)
    order = sorted(rows.index, key=lambda row: seeds.derive(config.seed, "blend", rows["user_id"][row]))
    rows = rows.loc[order[: config.training.blend_users]].reset_index(drop=True)
    ids = bundle.items.set_index("item_idx")["item_id"].to_dict()
    frame = pd.DataFrame({"user_id": rows["user_id"], "target": rows["held_back"].map(ids)})
    frame["item_ids"] = [[ids[idx] for idx in history if idx > 0] for history in rows["item_idx"]]
    frame["seen"] = [[ids[idx] for idx in seen if idx > 0] for seen in rows["seen"]]
    retriever = Retriever(bundle, None, config.candidates)
    if config.training.purpose == "serving":
        retrieved = retriever.retrieve(frame[["user_id", "item_ids", "seen"]]).set_index("user_id")[
            "item_ids"
        ]
        frame["candidates"] = list(retrieved.loc[frame["user_id"]])
        # Only lists that hold the true item say how to order one. Placing it into the others would teach that the true item is the one that
        # retrieval ranks last: on the demo shop all weights then became 0.
        found = [target in items for target, items in zip(frame["target"], frame["candidates"], strict=True)]
        frame = frame[found].reset_index(drop=True)
    else:
        known = {item: idx for idx, item in ids.items()}
        frame["candidates"] = [
            [target, *(ids[idx] for idx in sample_negatives(user, {known[item] for item in (*seen, target)}, len(ids),
                                                            config.evaluation.num_negatives, config.seed))]
            for user, target, seen in zip(frame["user_id"], frame["target"], frame["seen"], strict=True)
        ]  # fmt: skip
    scored = retriever.score(frame[["user_id", "item_ids", "candidates"]]).set_index("user_id")
    for column in ("cf_scores", "text_scores", "sources"):
        frame[column] = list(scored.loc[frame["user_id"], column])
    return frame.rename(columns={"item_ids": "history"})


def fit_blends(
    bundle: Bundle, snapshot: Snapshot, llm: FrozenLLM, config: Config, report: Callable[[str], None]
) -> tuple[dict[str, BlendWeights], dict[str, float]]:
    """Return the weights with and without the LLM and the figures of every part on the users they were fitted on.

    The LLM reads at most `training.blend_llm_users` of the users; the set without it is fitted on up to `training.blend_users`.
    """
    frame = blend_frame(bundle, snapshot, config)
    blends: dict[str, BlendWeights] = {}
    figures: dict[str, float] = {}
    for name, rows in (("without_llm", frame), ("with_llm", frame.head(config.training.blend_llm_users))):
        with_llm = name == "with_llm"
        scorer = Scorer(bundle, llm if with_llm else None, config)
        parts = []
        for start in range(0, len(rows), size := 64 if with_llm else 4096):
            chunk = rows.iloc[start : start + size].reset_index(drop=True)
            parts.append(scorer.score(chunk.assign(use_llm=with_llm)))
            if with_llm:
                report(f"  {min(start + size, len(rows)):,} / {len(rows):,} users read by the LLM")
        scored = (
            pd.concat(parts, ignore_index=True)
            if parts
            else rows.assign(alignment_scores=None, llm_choice_scores=None)
        )
        # Few users are read by the LLM: the weights with it are shrunk towards those found on all users without it.
        blends[name], found = fit_blend(
            scored, list(rows["target"]), with_llm, blends.get("without_llm"), config.seed
        )
        figures |= {f"blend_{name}_{figure}": value for figure, value in found.items()}
    return blends, figures
