"""The whole configuration: one frozen tree of sections, every field documented and checked before a run.

YAML files are overlays on the defaults (`load`): later ones win, and `--set section.key=value` wins over all.
Unknown keys and bad values are refused by their path. `reference` writes the table of conf/README.md.
"""

from allmrec.config.fingerprints import fingerprint
from allmrec.config.loading import asks_for_json, from_dict, load
from allmrec.config.reference import reference
from allmrec.config.sections import (
    CandidatesConfig,
    CFConfig,
    ColumnMapping,
    Config,
    CsvConfig,
    EvaluationConfig,
    GatesConfig,
    ImportingConfig,
    LLMConfig,
    MaintenanceConfig,
    PromptConfig,
    PublishConfig,
    ReportingConfig,
    ScoringConfig,
    Section,
    SequencesConfig,
    SourceConfig,
    SparkConfig,
    Stage1Config,
    Stage2Config,
    TablesConfig,
    TextEncoderConfig,
    TrainingConfig,
    ValueRules,
)

__all__ = [
    "CFConfig",
    "CandidatesConfig",
    "ColumnMapping",
    "Config",
    "CsvConfig",
    "EvaluationConfig",
    "GatesConfig",
    "ImportingConfig",
    "LLMConfig",
    "MaintenanceConfig",
    "PromptConfig",
    "PublishConfig",
    "ReportingConfig",
    "ScoringConfig",
    "Section",
    "SequencesConfig",
    "SourceConfig",
    "SparkConfig",
    "Stage1Config",
    "Stage2Config",
    "TablesConfig",
    "TextEncoderConfig",
    "TrainingConfig",
    "ValueRules",
    "asks_for_json",
    "fingerprint",
    "from_dict",
    "load",
    "reference",
]
