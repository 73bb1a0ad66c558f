"""Stage 2: the projections learn to speak to the frozen LLM (A-LLMRec, KDD 2024, section 4.2)."""
