"""Asking a frozen LLM: prompts as token ids and positions, packing, multi-item scoring, decoding.

It knows neither the model bundle nor the collaborative-filtering model: soft tokens come in as vectors.

Modules import `transformers`, not names from it. The package loads the module of a name at its first use.
That takes as long as importing torch, and most processes of a night load no model.
"""
