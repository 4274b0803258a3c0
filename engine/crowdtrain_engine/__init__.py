"""Programs whose meaning is exact to the last bit, their execution, and their commitments."""

from crowdtrain_engine._errors import BackendError, DataError, EngineError, ProgramError
from crowdtrain_engine.execution import Executor, execute
from crowdtrain_engine.native import isas
from crowdtrain_engine.profile import NestTime
from crowdtrain_engine.program import (
    Axis,
    DType,
    Index,
    Instruction,
    Labels,
    Mode,
    Nest,
    Program,
    Read,
    TensorType,
)
from crowdtrain_engine.state import Dataset, State

__all__ = [
    "Axis",
    "BackendError",
    "DType",
    "DataError",
    "Dataset",
    "EngineError",
    "Executor",
    "Index",
    "Instruction",
    "Labels",
    "Mode",
    "Nest",
    "NestTime",
    "Program",
    "ProgramError",
    "Read",
    "State",
    "TensorType",
    "execute",
    "isas",
]
