"""Prompts as token ids and positions: text segments and soft tokens, never marker strings."""
