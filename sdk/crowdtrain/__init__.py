"""crowdtrain: anybody's machine trains anybody's PyTorch model for pay, and nobody has to be trusted.

Everything here is imported when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crowdtrain_engine import (
        BackendError,
        DataError,
        Dataset,
        EngineError,
        Program,
        ProgramError,
        State,
        execute,
        isas,
    )

    from crowdtrain import optim, random, simulation, strategies
    from crowdtrain._errors import (
        BadAnswer,
        ChainError,
        ChainUnavailable,
        ConfigError,
        Corrupt,
        CrowdtrainError,
        LoweringError,
        NotFound,
        PlanError,
        Refused,
        RiskyTerms,
        StoreError,
        StoreUnavailable,
    )
    from crowdtrain._explain import MachineSpeed, explain
    from crowdtrain._training import LoweredPipeline, LoweredProgram, load_into
    from crowdtrain.bundle import load_bundle, save_bundle
    from crowdtrain.client import Client, JobHandle, NotReadyError, Quote
    from crowdtrain.lowering import (
        DataDependent,
        InvalidOption,
        UnsupportedModel,
        UnsupportedOperation,
        lower,
        lower_evaluation,
        lower_gradients,
        lower_stages,
    )
    from crowdtrain.simulation import recommend, simulate
    from crowdtrain.stores import FakeStore, HttpStore, IpfsStore, LocalStore, Store

_MODULES = {
    "crowdtrain._errors": (
        "BadAnswer", "ChainError", "ChainUnavailable", "ConfigError", "Corrupt", "CrowdtrainError",
        "LoweringError", "NotFound", "PlanError", "Refused", "RiskyTerms", "StoreError", "StoreUnavailable",
    ),
    "crowdtrain._explain": ("MachineSpeed", "explain"),
    "crowdtrain._training": ("LoweredPipeline", "LoweredProgram", "load_into"),
    "crowdtrain.bundle": ("load_bundle", "save_bundle"),
    "crowdtrain.client": ("Client", "JobHandle", "NotReadyError", "Quote"),
    "crowdtrain.lowering": (
        "DataDependent", "InvalidOption", "UnsupportedModel", "UnsupportedOperation", "lower",
        "lower_evaluation", "lower_gradients", "lower_stages",
    ),
    "crowdtrain.simulation": ("recommend", "simulate"),
    "crowdtrain.stores": ("FakeStore", "HttpStore", "IpfsStore", "LocalStore", "Store"),
    "crowdtrain_engine": (
        "BackendError", "DataError", "Dataset", "EngineError", "Program", "ProgramError", "State", "execute",
        "isas",
    ),
}  # fmt: skip
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BackendError",
    "BadAnswer",
    "ChainError",
    "ChainUnavailable",
    "Client",
    "ConfigError",
    "Corrupt",
    "CrowdtrainError",
    "DataDependent",
    "DataError",
    "Dataset",
    "EngineError",
    "FakeStore",
    "HttpStore",
    "InvalidOption",
    "IpfsStore",
    "JobHandle",
    "LocalStore",
    "LoweredPipeline",
    "LoweredProgram",
    "LoweringError",
    "MachineSpeed",
    "NotFound",
    "NotReadyError",
    "PlanError",
    "Program",
    "ProgramError",
    "Quote",
    "Refused",
    "RiskyTerms",
    "State",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "UnsupportedModel",
    "UnsupportedOperation",
    "execute",
    "explain",
    "isas",
    "load_bundle",
    "load_into",
    "lower",
    "lower_evaluation",
    "lower_gradients",
    "lower_stages",
    "optim",
    "random",
    "recommend",
    "save_bundle",
    "simulate",
    "simulation",
    "strategies",
]


def __getattr__(name: str) -> Any:
    if name in ("optim", "random", "simulation", "strategies"):
        return import_module(f"crowdtrain.{name}")
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'crowdtrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
