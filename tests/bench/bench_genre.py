"""The favourite genre (A-LLMRec, section 5.6), asked after the same beginning of the prompt.

    python -m tests.bench.bench_genre TABLES CONFIG [NUM_USERS] [SECTION.KEY=VALUE …]

TABLES holds a bundle for evaluation and its snapshot, of a shop whose items have categories. A user's
favourite genres are the most frequent ones among all the user's items before the last one. The LLM reads the
beginning of the prompt, with soft tokens and without them, and "The favourite genre of this user is"; what
it writes counts as the genre that it names first. Beside it: the genre that it finds likeliest, as an answer
scored like a title, minus what it finds likely without any user; and the genre that most users like best.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from allmrec import metrics
from allmrec.config import load
from allmrec.evaluation.comparison import in_words, paired
from allmrec.llm.generate import written
from allmrec.llm.multi_item import score_requests
from allmrec.llm.packing import Request
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import Prompt
from tests.bench.trained import Trained

QUESTION = "The favourite genre of this user is"
MAX_NEW_TOKENS = 12
TOKEN_BUDGET = 4096
NUM_USERS = 300


def main(root: Path, config_path: str, num_users: int, overrides: list[str]) -> None:
    """Ask about every user, and print what came of it."""
    config = load([config_path], [f"tables.root={root}", *overrides])
    trained = Trained.newest(root, config, num_users)
    items = trained.snapshot.items()
    genres_of_item = dict(zip(items["item_id"], items["categories"], strict=True))
    counts = [
        Counter(genre for item in history for genre in genres_of_item[item])
        for history in trained.users["history"]
    ]
    histories = [history for history, count in zip(trained.users["history"], counts, strict=True) if count]
    favourites = [most_frequent(count) for count in counts if count]
    genres = sorted({genre for listed in items["categories"] for genre in listed})
    said: dict[str, list[str | None]] = {
        "most users' favourite": [Counter(g for some in favourites for g in some).most_common(1)[0][0]]
        * len(favourites)
    }
    for label, soft_tokens in (("A-LLMRec", True), ("LLM-only", False)):
        said |= answers(trained, histories, genres, label, soft_tokens)
    report(said, favourites, len(genres), metrics.BOOTSTRAP_SAMPLES)


def most_frequent(count: Counter[str]) -> set[str]:
    """Return the genres that are as frequent as the most frequent one."""
    return {genre for genre, number in count.items() if number == max(count.values())}


@torch.inference_mode()
def answers(
    trained: Trained, histories: Sequence[Sequence[str]], genres: list[str], label: str, soft_tokens: bool
) -> dict[str, list[str | None]]:
    """Return what the LLM says of every user: the genre that it writes, and the one it finds likeliest."""
    bundle, llm = trained.bundle, trained.llm
    settings = bundle.config.prompt.model_copy(update={"soft_tokens": soft_tokens})
    layout, index = PromptLayout.of(settings, llm), bundle.index
    question = llm.tokenise(f" {QUESTION}")
    likeliest_of = [llm.tokenise(f" {genre}") for genre in genres]
    soft_items = bundle.soft_items.to(llm.device)
    nobody = Prompt([*llm.bos_ids, *llm.tokenise(QUESTION)])
    [prior] = score_requests(llm, [Request(nobody, likeliest_of)], None, None, TOKEN_BUDGET).logprobs
    wrote: list[str | None] = []
    likeliest: list[str | None] = []
    for history in histories:
        known = [index[item] for item in history if item in index][-bundle.config.sequences.max_history :]
        user_1H = bundle.rec.soft_users(torch.tensor([known]), bundle.soft_items).float().to(llm.device)
        prompt = layout.introduction(known, bundle.titles)
        prompt.token_ids += question
        text = written(llm, prompt, soft_items, user_1H, MAX_NEW_TOKENS)
        wrote.append(first_named(text, genres))
        [logprobs] = score_requests(
            llm, [Request(prompt, likeliest_of)], soft_items, user_1H, TOKEN_BUDGET
        ).logprobs
        likeliest.append(
            None if logprobs is None or prior is None else genres[int(np.argmax(logprobs - prior))]
        )
    return {f"{label}, written": wrote, f"{label}, likeliest": likeliest}


def first_named(text: str, genres: list[str]) -> str | None:
    """Return the genre that a text names first; the longest of those that begin at one place."""
    folded = text.casefold()
    places = [(folded.find(genre.casefold()), -len(genre), genre) for genre in genres]
    return min((place for place in places if place[0] >= 0), default=(0, 0, None))[2]


def report(
    said: dict[str, list[str | None]], favourites: list[set[str]], num_genres: int, num_samples: int
) -> None:
    """Print the share of right answers, the answers that name no genre, and the comparison that is asked."""
    right = {
        label: np.array([genre in best for genre, best in zip(given, favourites, strict=True)], dtype=float)
        for label, given in said.items()
    }
    print(f"favourite genre among {num_genres}, n = {len(favourites):,} users; right [95 %], names none")
    for label, values_N in right.items():
        (low,), (high,) = metrics.bootstrap_intervals(values_N[:, None], num_samples)
        none = np.mean([genre is None for genre in said[label]])
        print(f"{label:<24}{values_N.mean():.3f} [{low:.3f}, {high:.3f}]  {none:.3f}")
    for kind in ("written", "likeliest"):
        one = paired(right[f"LLM-only, {kind}"], right[f"A-LLMRec, {kind}"], num_samples, 0)
        print(f"A-LLMRec against LLM-only, {kind}: {in_words('right', one)}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    numbers = [int(argument) for argument in sys.argv[3:] if argument.isdigit()]
    settings = [argument for argument in sys.argv[3:] if "=" in argument]
    main(Path(sys.argv[1]), sys.argv[2], numbers[0] if numbers else NUM_USERS, settings)
