"""Stage 1: one space for what users did and what texts say (A-LLMRec, KDD 2024, section 4.1)."""

from allmrec.training.stage1.objective import Stage1Objective
from allmrec.training.stage1.train_stage1 import Stage1Result, train_stage1

__all__ = ["Stage1Objective", "Stage1Result", "train_stage1"]
