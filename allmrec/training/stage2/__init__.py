"""Stage 2: the projections learn to speak to the frozen LLM (A-LLMRec, KDD 2024, section 4.2)."""

from allmrec.training.stage2.llm_objective import PromptParts
from allmrec.training.stage2.train_stage2 import START, train_stage2, train_stage2_share

__all__ = ["START", "PromptParts", "train_stage2", "train_stage2_share"]
