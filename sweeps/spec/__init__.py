"""What one run is: frozen, validated objects and the identity they have.

A ``RunSpec`` holds everything that decides a run's *result*, plus an ``Execution`` that decides
only how it is carried out. ``run_id`` hashes the first and not the second, so two sweeps share a
finished run and a retry on other hardware is the same run. Paths never enter it: a local model or
data file counts by its content digest.
"""

from sweeps.spec.data_source import BuiltinData, DataSource, FileData, HubData
from sweeps.spec.execution import Execution
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
    DATA_ROLES,
    OBJECTIVE_DEFAULTS,
    OBJECTIVES,
    PRETRAINING_OBJECTIVES,
    Objective,
    ObjectiveKind,
)
from sweeps.spec.plugin import Options, PluginCode, PluginMetric
from sweeps.spec.probe import METRICS, PROBE_SEQUENCES, Probe
from sweeps.spec.run import RunSpec
from sweeps.spec.training.control import (
    CONTROLS,
    Control,
    EqualStep,
    LayerClip,
    PluginControl,
    Standard,
)
from sweeps.spec.training.optimizer import Optimizer, learning_rate

__all__ = [
    "CONTROLS",
    "DATA_ROLES",
    "MEASUREMENTS",
    "METRICS",
    "OBJECTIVES",
    "OBJECTIVE_DEFAULTS",
    "PRETRAINING_OBJECTIVES",
    "PROBE_SEQUENCES",
    "RECURRENT_STANDINS",
    "STANDIN_FAMILIES",
    "STANDIN_POSITIONS",
    "USUAL_MEASUREMENTS",
    "Blocks",
    "BuiltinData",
    "Control",
    "DataSource",
    "EqualStep",
    "Execution",
    "FileData",
    "FolderModel",
    "Freeze",
    "Frozen",
    "HubData",
    "HubModel",
    "LayerClip",
    "Measurement",
    "MeasurementKind",
    "ModelSource",
    "ModelSpec",
    "Objective",
    "ObjectiveKind",
    "Optimizer",
    "Options",
    "PluginCode",
    "PluginControl",
    "PluginMetric",
    "Positive",
    "Pretraining",
    "Probe",
    "RunSpec",
    "Standard",
    "StandinModel",
    "Steps",
    "content_id",
    "counted",
    "is_measurement",
    "learning_rate",
    "measurements_of",
]
