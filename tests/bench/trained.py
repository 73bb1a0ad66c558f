"""What benches without Spark begin with: a bundle for evaluation in a folder of tables, and its users."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from allmrec.bundle import Bundle, load_bundle
from allmrec.bundle.folder import MANIFEST
from allmrec.cache import cache_folder
from allmrec.config import CandidatesConfig, Config
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.scoring.retrieval import Retriever
from allmrec.training.loader import Snapshot


@dataclass(frozen=True)
class Trained:
    """The newest bundle for evaluation below a `tables.root`, and what it was trained on."""

    bundle: Bundle
    snapshot: Snapshot
    llm: FrozenLLM
    users: pd.DataFrame
    """user_id, history, target, seen_before, place: the sample of `allmrec evaluate`, in its order."""

    @classmethod
    def newest(cls, root: Path, config: Config, num_users: int | None) -> Trained:
        """Load it; raises ValueError where there is none."""
        found = []
        for path in (root / "_bundles").glob(f"*/{MANIFEST}"):
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["purpose"] == "evaluation" and manifest["parent_id"] is None:
                found.append((manifest["created_at"], path.parent, manifest["fingerprint"]))
        if not found:
            raise ValueError(f"{root}: no bundle for evaluation; train one with training.purpose=evaluation")
        _, folder, fingerprint = max(found)
        llm = FrozenLLM.load(config.llm, cache_folder(config.cache))
        snapshot = Snapshot(root / "_snapshots" / fingerprint)
        users = users_of(snapshot, config.seed)
        return cls(load_bundle(folder, llm), snapshot, llm, users.head(num_users or len(users)))

    def lists(self, settings: CandidatesConfig) -> CandidateLists:
        """Return the users' lists as a night of the cut-off retrieves them; all users ask the LLM."""
        retriever = Retriever(self.bundle, self.snapshot.available_items(), settings)
        columns = (self.users[name].tolist() for name in ("user_id", "history", "seen_before"))
        return retriever.retrieve(*columns).asking_llm(True)


def only_snapshot(root: Path) -> Snapshot:
    """Return the snapshot in `root/_snapshots`; raises ValueError where there is not exactly one."""
    folders = sorted(path.parent for path in (root / "_snapshots").glob("*/manifest.json"))
    if len(folders) != 1:
        raise ValueError(f"{root}/_snapshots: {len(folders)} snapshots, expected one")
    return Snapshot(folders[0])


def users_of(snapshot: Snapshot, seed: int) -> pd.DataFrame:
    """Return user_id, history, target, seen_before and place of the test users, in the drawn order."""
    users = pd.read_parquet(snapshot.folder / "targets")
    drawn = [_drawn(seed, user) for user in users["user_id"]]
    users = users.assign(drawn=drawn).sort_values(["drawn", "user_id"], ignore_index=True)
    return users.drop(columns="drawn").assign(place=range(1, len(users) + 1))


def _drawn(seed: int, user: str) -> str:
    """Return what users are sorted by, as in `allmrec.steps.evaluated`."""
    return hashlib.sha256(f"{seed}:evaluate:{user}".encode()).hexdigest()
