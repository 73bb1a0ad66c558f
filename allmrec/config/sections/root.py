"""The root of the configuration, and the rules across its sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from allmrec.config.sections.bundle_settings import BundleConfig
from allmrec.config.sections.cache_settings import CacheConfig
from allmrec.config.sections.candidate_settings import CandidatesConfig
from allmrec.config.sections.cf_settings import CFConfig
from allmrec.config.sections.evaluation_settings import EvaluationConfig
from allmrec.config.sections.gate_settings import GatesConfig
from allmrec.config.sections.import_settings import ImportingConfig
from allmrec.config.sections.llm_settings import LLMConfig, PromptConfig
from allmrec.config.sections.publish_settings import PublishConfig
from allmrec.config.sections.run_settings import MaintenanceConfig, ReportingConfig, SparkConfig
from allmrec.config.sections.scoring_settings import ScoringConfig
from allmrec.config.sections.section import Section
from allmrec.config.sections.sequence_settings import SequencesConfig
from allmrec.config.sections.stage1_settings import Stage1Config
from allmrec.config.sections.stage2_settings import Stage2Config
from allmrec.config.sections.table_settings import SourceConfig, TablesConfig
from allmrec.config.sections.text_encoder_settings import TextEncoderConfig
from allmrec.config.sections.training_settings import TrainingConfig
from allmrec.parts import reads_llm


class Config(Section):
    """The root of the configuration."""

    seed: Annotated[int, Field(ge=0)] = 20261121
    """Seed of every random draw."""
    tables: TablesConfig = TablesConfig()
    """The places of the tables."""
    importing: ImportingConfig = ImportingConfig()
    """Import of files."""
    sequences: SequencesConfig = SequencesConfig()
    """User sequences."""
    candidates: CandidatesConfig = CandidatesConfig()
    """Candidates."""
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    """Sentence encoder."""
    cf: CFConfig = CFConfig()
    """Collaborative-filtering model."""
    stage1: Stage1Config = Stage1Config()
    """Stage 1."""
    stage2: Stage2Config = Stage2Config()
    """Stage 2."""
    training: TrainingConfig = TrainingConfig()
    """All parts of a training."""
    bundle: BundleConfig = BundleConfig()
    """The bundle that is used."""
    llm: LLMConfig = LLMConfig()
    """The LLM."""
    prompt: PromptConfig = PromptConfig()
    """The prompt."""
    scoring: ScoringConfig = ScoringConfig()
    """Scoring."""
    gates: GatesConfig = GatesConfig()
    """Rules before publishing."""
    publish: PublishConfig = PublishConfig()
    """Publishing."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""
    cache: CacheConfig = CacheConfig()
    """The cache."""
    maintenance: MaintenanceConfig = MaintenanceConfig()
    """Maintenance."""
    reporting: ReportingConfig = ReportingConfig()
    """Reports of commands."""
    spark: SparkConfig = SparkConfig()
    """Spark."""

    def without_secrets(self) -> Config:
        """Return this configuration without `spark.settings`, which may be passwords."""
        return self.model_copy(update={"spark": self.spark.model_copy(update={"settings": {}})})

    @model_validator(mode="after")
    def _check_across_sections(self) -> Config:
        for name in ("interactions", "items", "users"):
            source: SourceConfig = getattr(self.tables, name)
            if source.table is not None and source.path is not None:
                raise ValueError(
                    f"tables.{name}.path: {source.path}, beside tables.{name}.table: {source.table}; "
                    "expected one of both"
                )
        if self.candidates.text_quota > self.candidates.num_candidates:
            raise ValueError(
                f"candidates.text_quota: {self.candidates.text_quota}, expected at most "
                f"candidates.num_candidates ({self.candidates.num_candidates})"
            )
        if self.prompt.tokenise == "whole" and self.prompt.layout != "authors":
            raise ValueError(
                "prompt.tokenise: whole, expected segments where prompt.layout is "
                f"{self.prompt.layout}, not authors; set prompt.tokenise=segments"
            )
        for name in ("email_slots", "feed_slots"):
            slots = getattr(self.publish, name)
            # A default may exceed top_k: e-mails and feeds are then as short as the lists.
            if slots > self.scoring.top_k and slots != PublishConfig.model_fields[name].default:
                raise ValueError(
                    f"publish.{name}: {slots}, expected at most scoring.top_k ({self.scoring.top_k}); "
                    f"set scoring.top_k={slots}, or fewer slots"
                )
        order = self.scoring.order
        if self.scoring.mode != "rank" and order != "auto" and not reads_llm(order):
            raise ValueError(
                f"scoring.order: {order}, expected auto, blend_with_llm or llm where scoring.mode is "
                f"{self.scoring.mode}"
            )
        return self
