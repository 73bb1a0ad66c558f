"""The model bundle: all that scoring needs but the LLM, in one immutable folder.

    manifest.json      what it is and was made of, and the checksum of every file (`manifest.Manifest`)
    config.json        the configuration it was trained with, without what only the machine concerns
    items.parquet      item_idx, item_id, title, text_hash, num_interactions (in training)
    items.safetensors  Q [I+1, S], known [I+1], title tokens (flat, offsets), priors [I+1] where there are
                       any, soft tokens O_i [I+1, H], mean q of the training's items [J], links
                       between items (sparse matrices)
    cf.safetensors, stage1.safetensors, stage2.safetensors, blend.json
    words.json         the words of the titles, and their counts
    decision.json      whether the LLM is worth its cost
    text_encoder/      where it was fine-tuned

The table `STATES` (`allmrec.bundle.states`) has a class for each trained part, which saves, loads and checks
its files. No pickle anywhere. Items added or reworded since training make a child bundle with
`parent_id` (`extend_bundle`).
"""

from allmrec.bundle.bundle import Bundle, assemble_bundle
from allmrec.bundle.extension import changed_items, child_of, extend_bundle
from allmrec.bundle.folder import verify_bundle
from allmrec.bundle.manifest import EncoderIdentity, LLMIdentity, Manifest
from allmrec.bundle.states import (
    STATES,
    AlignmentState,
    CFState,
    FittedOrder,
    LinkState,
    NewItems,
    ProjectionState,
    State,
    Stored,
    TitleState,
)
from allmrec.bundle.states.order_state import decision_of
from allmrec.bundle.store import check_llm, load_bundle, save_bundle, select_bundle
from allmrec.bundle.transfer import transferred_bundle
from allmrec.item_text import text_hash

__all__ = [
    "STATES",
    "AlignmentState",
    "Bundle",
    "CFState",
    "EncoderIdentity",
    "FittedOrder",
    "LLMIdentity",
    "LinkState",
    "Manifest",
    "NewItems",
    "ProjectionState",
    "State",
    "Stored",
    "TitleState",
    "assemble_bundle",
    "changed_items",
    "check_llm",
    "child_of",
    "decision_of",
    "extend_bundle",
    "load_bundle",
    "save_bundle",
    "select_bundle",
    "text_hash",
    "transferred_bundle",
    "verify_bundle",
]
