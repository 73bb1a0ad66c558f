"""Retrieval, scoring with the frozen LLM, and the served order: pandas frames in, pandas frames out."""
