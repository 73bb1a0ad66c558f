"""Requests to a frozen LLM: prompts, packing, multi-item scoring, decoding.

This room uses neither the model bundle nor the collaborative-filtering model; soft tokens are given as
vectors.

Modules import `transformers`, not names from it, so that a submodule is loaded at its first use. Loading all
of them takes as long as importing torch, and most processes of a night load no model.
"""
