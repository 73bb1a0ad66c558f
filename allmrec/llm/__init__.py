"""Asking a frozen LLM: prompts as token ids and positions, packing, multi-item scoring, decoding. Knows neither bundle nor CF model."""
