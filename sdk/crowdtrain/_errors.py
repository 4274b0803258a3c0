"""Everything that the SDK raises on purpose, besides what the engine raises.

CrowdtrainError
├── ConfigError            configuration, key or deployment file that cannot be used
├── ChainError
│   ├── ChainUnavailable   no node answers; trying again may help
│   ├── BadAnswer          the node answered something that cannot be
│   └── Refused            a contract refuses a call: ``error`` is its name, ``values`` its fields
├── StoreError
│   ├── StoreUnavailable   the store does not answer; trying again may help
│   ├── NotFound           no such blob
│   └── Corrupt            what came back is not what the CID or root says
├── PlanError              a plan or manifest that is malformed or does not match the chain
├── RiskyTerms             terms of a campaign under which cheating pays, or nobody has time to object
└── LoweringError          a model that cannot be lowered
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "BadAnswer", "ChainError", "ChainUnavailable", "ConfigError", "Corrupt", "CrowdtrainError", "LoweringError",
    "NotFound", "PlanError", "Refused", "RiskyTerms", "StoreError", "StoreUnavailable",
]  # fmt: skip


class CrowdtrainError(Exception):
    """Base of all errors of the SDK."""


class ConfigError(CrowdtrainError):
    """Configuration, a key or a deployment file that cannot be used."""


class ChainError(CrowdtrainError):
    """Something about the chain."""


class ChainUnavailable(ChainError):
    """No node answers; trying again may help."""


class BadAnswer(ChainError):
    """The node answered something that cannot be."""


class Refused(ChainError):
    """A contract refuses a call; nothing was sent, or it was reverted."""

    def __init__(self, call: str, error: str, values: Mapping[str, object]) -> None:
        inside = ", ".join(f"{name}={value}" for name, value in values.items())
        super().__init__(f"{call} was refused: {error}({inside})")
        self.call = call
        self.error = error
        self.values = dict(values)


class StoreError(CrowdtrainError):
    """Something about a store."""


class StoreUnavailable(StoreError):
    """The store does not answer; trying again may help."""


class NotFound(StoreError):
    """No blob with this CID."""


class Corrupt(StoreError):
    """What came back is not what its CID or root says."""


class PlanError(CrowdtrainError, ValueError):
    """A plan or manifest that is malformed, or does not match what is on chain."""


class RiskyTerms(CrowdtrainError):
    """Terms of a campaign under which cheating pays, or nobody has time to object."""


class LoweringError(CrowdtrainError):
    """A model that cannot be lowered."""
