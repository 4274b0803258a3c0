"""Training strategies: how many machines train one model. Each is a plan builder and nothing more.

``blueprint`` says what a plan needs and how one is drafted, ``crew`` holds the workers of a plan, ``programs`` writes
the programs that merge, encode and receive, ``codecs`` how a change travels, ``outer`` how a merge moves the model;
``merging`` puts these together. The strategies are in ``stepwise``, ``periodic``, ``elastic``, ``modular`` and
``pipeline``; ``chosen`` plans one by its numbers. ``local`` carries a plan out on one machine, ``traffic`` counts what
would travel. Nothing needs PyTorch.
"""

from crowdtrain.strategies.blueprint import Blueprint, Draft, Either, Piece, Ref, Role
from crowdtrain.strategies.chosen import planned
from crowdtrain.strategies.codecs import Codec, Cosine, Exact, Quantized, TopK
from crowdtrain.strategies.elastic import elastic_diloco
from crowdtrain.strategies.local import Done, Outcome, carry_out
from crowdtrain.strategies.modular import Path, dipaco, mixture, of_path
from crowdtrain.strategies.outer import DelayedNesterov, outer_optimizer
from crowdtrain.strategies.periodic import (
    diloco,
    lo_fi,
    local_sgd,
    sparse_loco,
    streaming_diloco,
)
from crowdtrain.strategies.pipeline import swarm
from crowdtrain.strategies.stepwise import data_parallel, demo, zero
from crowdtrain.strategies.traffic import Traffic

__all__ = [
    "Blueprint",
    "Codec",
    "Cosine",
    "DelayedNesterov",
    "Done",
    "Draft",
    "Either",
    "Exact",
    "Outcome",
    "Path",
    "Piece",
    "Quantized",
    "Ref",
    "Role",
    "TopK",
    "Traffic",
    "carry_out",
    "data_parallel",
    "demo",
    "diloco",
    "dipaco",
    "elastic_diloco",
    "lo_fi",
    "local_sgd",
    "mixture",
    "of_path",
    "outer_optimizer",
    "planned",
    "sparse_loco",
    "streaming_diloco",
    "swarm",
    "zero",
]
