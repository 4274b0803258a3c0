"""Writes the golden models of sdk/crowdtrain/golden: ``python -m golden`` in tests/, or ``make golden``; a minute."""

from __future__ import annotations

import json
from collections.abc import Mapping

import crowdtrain.optim as optim
import numpy as np
from crowdtrain import golden
from crowdtrain.lowering import lower
from crowdtrain.lowering.update import Optimizers
from crowdtrain_engine import Dataset, execute
from lowering_support import arrays_of, rows_of
from zoo import ZOO

STEPS = 3

OPTIMIZERS: Mapping[str, Optimizers] = {
    "autoencoder": optim.Adamax(lr=1e-3),
    "bert": optim.AdamW(lr=1e-3),
    "bidirectional_lstm": optim.RMSprop(lr=1e-3),
    "clip": optim.AdamW(lr=1e-3),
    "experts_top2": optim.Adagrad(lr=1e-2),
    "gpt_dropout": optim.AdamW(lr=1e-3),
    "graph": optim.NAdam(lr=1e-3),
    "gru": optim.SGD(lr=1e-2, momentum=0.9, nesterov=True),
    "llama": optim.Lion(lr=1e-4),
    "mixed_resnet": optim.SGD(lr=1e-2, momentum=0.9),
    "mlp": optim.SGD(lr=1e-1),
    "resnet": optim.Adam(lr=1e-3),
    "seq2seq": optim.Adafactor(lr=1e-3),
    "unet": optim.AdamW(lr=1e-3),
    "vae": optim.Adam(lr=1e-3),
    "vgg": optim.AdamW(lr=1e-3),
    "vit": [(lambda _, p: p.dim() == 2, optim.Muon(lr=1e-2)), ("*", optim.AdamW(lr=1e-3))],
}
"""The models of the zoo that are golden, each with an optimizer."""


def write(name: str) -> dict[str, str | int]:
    """Writes a model's file; its row of the table."""
    entry = ZOO[name]
    inputs, targets = entry.samples(2 * entry.batch)
    some = slice(entry.batch)
    program = lower(
        entry.make(),
        entry.loss,
        optimizer=OPTIMIZERS[name],
        example=(rows_of(inputs, some), rows_of(targets, some)),
        seed=7,
    )
    order = np.arange(STEPS * entry.batch).reshape(STEPS, entry.batch) % (2 * entry.batch)
    data = Dataset(arrays_of(inputs), arrays_of(targets), order=order)
    bound = program.bind(data.rows)
    packed = golden.pack(bound, program.initial_state(), data)
    (golden.FOLDER / f"{name}.xz").write_bytes(packed)
    _, state, data = golden.unpack(packed)
    after, _ = execute(bound, state, data, steps=STEPS, backend="reference")
    return {"steps": STEPS, "program": bound.root.hex(), "state": after.root.hex()}


def main() -> None:
    """Writes the files and the table."""
    for path in golden.FOLDER.glob("*.xz"):
        path.unlink()
    table = {}
    for name in OPTIMIZERS:
        table[name] = write(name)
        print(f"{name}: {(golden.FOLDER / f'{name}.xz').stat().st_size} bytes", flush=True)
    (golden.FOLDER / golden.TABLE).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
