"""The whole configuration: one frozen tree of sections, every field documented and checked before a run.

YAML files are overlays on the defaults (`load`): later ones win, and `--set section.key=value` wins over all.
Unknown keys and bad values are refused by their path. `reference` and `rare_reference` write the tables of
conf/README.md.
"""

from allmrec.config.fingerprints import fingerprint
from allmrec.config.overlays import asks_for_json, from_dict, from_stored, load
from allmrec.config.reference import rare_reference, reference
from allmrec.config.sections.bundle_settings import BundleConfig
from allmrec.config.sections.cache_settings import CacheConfig
from allmrec.config.sections.candidate_settings import CandidatesConfig
from allmrec.config.sections.cf_settings import CFConfig
from allmrec.config.sections.evaluation_settings import EvaluationConfig
from allmrec.config.sections.gate_settings import GatesConfig
from allmrec.config.sections.import_settings import ColumnMapping, CsvConfig, ImportingConfig
from allmrec.config.sections.llm_settings import LLMConfig, PromptConfig
from allmrec.config.sections.publish_settings import PublishConfig
from allmrec.config.sections.root import Config
from allmrec.config.sections.rule_settings import RuleConfig
from allmrec.config.sections.run_settings import MaintenanceConfig, ReportingConfig, SparkConfig
from allmrec.config.sections.scoring_settings import ScoringConfig
from allmrec.config.sections.section import Section
from allmrec.config.sections.sequence_settings import SequencesConfig
from allmrec.config.sections.stage1_settings import Stage1Config
from allmrec.config.sections.stage2_settings import Stage2Config
from allmrec.config.sections.table_settings import SourceConfig, TablesConfig, ValueRules
from allmrec.config.sections.text_encoder_settings import TextEncoderConfig
from allmrec.config.sections.training_settings import TrainingConfig

__all__ = [
    "BundleConfig",
    "CFConfig",
    "CacheConfig",
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
    "RuleConfig",
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
    "from_stored",
    "load",
    "rare_reference",
    "reference",
]
