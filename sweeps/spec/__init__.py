"""What one run is: frozen, validated objects and the identity they have.

A ``RunSpec`` holds everything that decides a run's *result*, plus an ``Execution`` that decides
only how it is carried out. ``run_id`` hashes the first and not the second, so two sweeps share a
finished run and a retry on other hardware is the same run. Paths never enter it: a local model or
data file counts by its content digest.
"""

from sweeps.spec.data_source import BuiltinData, DataSource, FileData, HubData
from sweeps.spec.execution import Execution, Keep
from sweeps.spec.frozen import Frozen, Positive, Steps, content_id
from sweeps.spec.measurement import (
    MEASUREMENTS,
    USUAL_MEASUREMENTS,
    Measurement,
    MeasurementKind,
    counted,
    is_measurement,
    measurements_of,
)
from sweeps.spec.model_source import (
    RECURRENT_STANDINS,
    STANDIN_FAMILIES,
    STANDIN_POSITIONS,
    TIED_STANDINS,
    Blocks,
    FolderModel,
    Freeze,
    HubModel,
    ModelSource,
    ModelSpec,
    Pretraining,
    StandinModel,
)
from sweeps.spec.objective import (
    ANSWERING,
    COMPARING,
    DATA_FORMS,
    LABELLED,
    OBJECTIVE_DEFAULTS,
    OBJECTIVES,
    PRETRAINING_OBJECTIVES,
    WITH_HEAD,
    Cell,
    Form,
    Objective,
    ObjectiveKind,
)
from sweeps.spec.plugin import Options, PluginCode, PluginMetric
from sweeps.spec.probe import METRICS, PROBE_SEQUENCES, Probe
from sweeps.spec.run import RunSpec
from sweeps.spec.training.adapter import ADAPTERS, Adapter, Lora, NoAdapter
from sweeps.spec.training.control import (
    CONTROLS,
    Control,
    EqualStep,
    LayerClip,
    LayerRates,
    PluginControl,
    Standard,
)
from sweeps.spec.training.evaluation import (
    LOSS,
    SCORES,
    Evaluation,
    NoImprovement,
    Stop,
    every_score,
    score_column,
    scores_of,
)
from sweeps.spec.training.optimizer import (
    OPTIMIZERS,
    Optimizer,
    PluginRule,
    learning_rate,
)
from sweeps.spec.training.tuned import Tuned

__all__ = [
    "ADAPTERS",
    "ANSWERING",
    "COMPARING",
    "CONTROLS",
    "DATA_FORMS",
    "LABELLED",
    "LOSS",
    "MEASUREMENTS",
    "METRICS",
    "OBJECTIVES",
    "OBJECTIVE_DEFAULTS",
    "OPTIMIZERS",
    "PRETRAINING_OBJECTIVES",
    "PROBE_SEQUENCES",
    "RECURRENT_STANDINS",
    "SCORES",
    "STANDIN_FAMILIES",
    "STANDIN_POSITIONS",
    "TIED_STANDINS",
    "USUAL_MEASUREMENTS",
    "WITH_HEAD",
    "Adapter",
    "Blocks",
    "BuiltinData",
    "Cell",
    "Control",
    "DataSource",
    "EqualStep",
    "Evaluation",
    "Execution",
    "FileData",
    "FolderModel",
    "Form",
    "Freeze",
    "Frozen",
    "HubData",
    "HubModel",
    "Keep",
    "LayerClip",
    "LayerRates",
    "Lora",
    "Measurement",
    "MeasurementKind",
    "ModelSource",
    "ModelSpec",
    "NoAdapter",
    "NoImprovement",
    "Objective",
    "ObjectiveKind",
    "Optimizer",
    "Options",
    "PluginCode",
    "PluginControl",
    "PluginMetric",
    "PluginRule",
    "Positive",
    "Pretraining",
    "Probe",
    "RunSpec",
    "Standard",
    "StandinModel",
    "Steps",
    "Stop",
    "Tuned",
    "content_id",
    "counted",
    "every_score",
    "is_measurement",
    "learning_rate",
    "measurements_of",
    "score_column",
    "scores_of",
]
