"""Training speed beside eager PyTorch: the same model, batch and optimizer, step after step, in turn in one run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import crowdtrain as ct
from crowdtrain_engine import Executor
from zoo.language import GPT, Llama, TaggingLSTM, next_token_loss
from zoo.vision import CNN, MLP, ResNet

def tokens(v, b, t): return torch.randint(v, (b, t)), torch.randint(v, (b, t))
def images(b, *shape): return torch.randn(b, *shape), torch.randint(10, (b,))
MODELS = {
    "MLP": (lambda: MLP(64, 256, 256, 10), lambda: images(64, 64), F.cross_entropy),
    "CNN": (lambda: CNN(), lambda: images(64, 1, 28, 28), F.cross_entropy),
    "ResNet": (lambda: ResNet(64, (2,)), lambda: images(32, 3, 32, 32), F.cross_entropy),
    "GPT-0.8M": (lambda: GPT(65, 128, 4, 4, 64), lambda: tokens(65, 16, 64), next_token_loss),
    "GPT-5M": (lambda: GPT(256, 256, 6, 8, 128), lambda: tokens(256, 16, 128), next_token_loss),
    "GPT-11M": (lambda: GPT(256, 384, 6, 6, 128), lambda: tokens(256, 16, 128), next_token_loss),
    "Llama-5M": (lambda: Llama(256, 256, 6, 8, 2, 704, 128), lambda: tokens(256, 16, 128), next_token_loss),
    "LSTM": (lambda: TaggingLSTM(65, 128, 2), lambda: tokens(65, 32, 32), next_token_loss),
}
def main():
    names = sys.argv[1:] or list(MODELS)
    torch.set_num_threads(2)
    for name in names:
        make, batch, loss = MODELS[name]
        torch.manual_seed(0)
        model = make(); x, y = batch()
        t = time.time()
        program = ct.lower(model, loss, optimizer=ct.optim.AdamW(lr=1e-3), example=(x, y))
        lowered = time.time() - t
        steps = 10000
        order = np.tile(np.arange(len(x)), (steps, 1))
        ex = Executor(program, program.initial_state(), ct.Dataset(x.numpy(), y.numpy(), order=order), threads=2)
        opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
        def eager():
            opt.zero_grad(); l = loss(model(x), y); l.backward(); opt.step()
        a, b = [], []
        ex.run(1); eager()
        for _ in range(5):
            for f, out in ((lambda: ex.run(1), a), (eager, b)):
                n, s = 0, time.perf_counter()
                while (e := time.perf_counter() - s) < 0.4: f(); n += 1
                out.append(e / n)
        params = sum(p.numel() for p in model.parameters())
        print(f"{name:10} {params/1e6:.2f}M nests {len(program.nests)} lower {lowered:.1f}s ours {min(a)*1e3:8.2f} eager {min(b)*1e3:8.2f} ratio {min(a)/min(b):.2f} med {np.median(a)/np.median(b):.2f}", flush=True)
main()
