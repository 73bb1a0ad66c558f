"""Asking a frozen LLM: prompts as token ids and positions, packing, multi-item scoring, decoding.

It knows neither the model bundle nor the collaborative-filtering model: soft tokens come in as vectors.
"""
