"""The torch side of the toy plugin."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from zoo import Backbone, ModelDims, Output
from zoo.data.module import SPLITS, Example, Split, TaskData


class ToyBackbone(Backbone):
    def __init__(self, config: Any, dims: ModelDims) -> None:
        super().__init__(config, dims)
        if config.fault_at == 0:
            self.fail()
        self.rnn = nn.GRU(dims.d_model, dims.d_model, dims.n_layers, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.calls = 0

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: Any = None) -> Output:
        if self.training:
            self.calls += 1
            # not a setting: how slow a machine is must not change what is run
            time.sleep(float(os.environ.get("TOY_SLOW", "0")))
        if self.calls >= self.config.fault_at:
            if self.config.fault == "nan" or (self.config.fault == "val-nan" and not self.training):
                return Output(x * float("nan"))
            self.fail()
        return Output(self.dropout(self.rnn(x)[0]))

    def fail(self) -> None:
        if self.config.fault == "oom":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 EiB")
        if self.config.fault == "raise":
            raise RuntimeError("planted fault")
        if self.config.fault.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[self.config.fault])


class ToySet(Dataset[Example]):
    def __init__(self, split: Split, n: int, seq_len: int, values: bool) -> None:
        rng = np.random.default_rng(SPLITS.index(split))
        self.rows = []
        for _ in range(n):
            length = int(rng.integers(3, seq_len + 1))
            ids = rng.integers(1, 5, size=length)
            label = int((ids == 1).sum() >= 2)
            self.rows.append(((ids / 4).astype(np.float32) if values else ids, label))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.rows[index]


class PairSet(ToySet):
    def __getitem__(self, index: int) -> Example:
        ids, label = self.rows[index]
        return np.stack([ids, np.where(np.arange(len(ids)) < 3, ids[::-1], 0)]), label


class ToyData(TaskData):
    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    def dataset(self, split: Split) -> Dataset[Example]:
        n = self.options.train_size if split == "train" else 40
        return ToySet(split, n, self.options.seq_len, self.options.input == "values")

    def provenance(self) -> dict[str, Any]:
        counts = {split: len(self.dataset(split)) for split in SPLITS}  # type: ignore[arg-type]
        return {"kind": "regenerated", "version": "1", "seed": 0, "counts": counts}

    def verify(self) -> list[str]:
        return []


class PairData(ToyData):
    """The sequences of ToyData beside the last three of their tokens, turned round."""

    def dataset(self, split: Split) -> Dataset[Example]:
        return PairSet(split, self.options.train_size if split == "train" else 40, self.options.seq_len, False)
