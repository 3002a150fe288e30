"""What a model is given, and how examples become it. B batch, L seq_len, T target length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.questions import IGNORE, Question, Specials, lay_out
from zoo.spec.architecture import Objective


class Batch(NamedTuple):
    """The input and labels of one step.

    inputs  (B, L) int64 ids or float32 values, (B, L, channels) values; (B, 2, L) ids for pair classification
    mask    same shape without channels, bool, True = real token; None when every token of every row is real
    labels  (B,) int64 for classes, float32 for numbers; for answers at positions (B, L), or (B, T) beside `target`,
            IGNORE where nothing is scored
    target  (B, T) int64, what the decoder reads; seq2seq only
    fresh   (B,) bool: rows in which a text begins and no state is carried from the batch before; None = all
    groups  (B,) int64, rows of `TaskData.groups`; None = the split has no groups
    step_targets  targets of all batches of an optimiser step on this device, a scalar; None outside training
    """

    inputs: Tensor
    mask: Tensor | None
    labels: Tensor
    target: Tensor | None = None
    fresh: Tensor | None = None
    groups: Tensor | None = None
    step_targets: Tensor | None = None

    @property
    def n_targets(self) -> Tensor:
        """How many answers the loss is a mean of; a scalar on the batch's device."""
        if self.labels.is_floating_point():  # numbers to be predicted, of which none is left out
            return torch.full((), self.labels.numel(), device=self.labels.device)
        return (self.labels != IGNORE).sum()

    @property
    def n_tokens(self) -> Tensor:
        """Real tokens that the model reads, those of the decoder included; a scalar on the batch's device."""
        read = torch.full((), self.n_places, device=self.inputs.device) if self.mask is None else self.mask.sum()
        return read if self.target is None else read + (self.labels != IGNORE).sum()

    @property
    def n_places(self) -> int:
        """Positions of the inputs, pads included."""
        if self.mask is not None:
            return self.mask.numel()
        channels = self.inputs.shape[-1] if self.inputs.ndim == 3 and self.inputs.is_floating_point() else 1
        return self.inputs.numel() // channels


class TrainLoader(DataLoader[Batch]):
    """Batches that know how many targets their optimiser step has, so that each can be weighed by its share.

    batches_per_step  how many of them accumulate into one step on this device
    """

    batches_per_step = 1

    def __iter__(self) -> Any:
        batches = super().__iter__()
        while step := list(islice(batches, self.batches_per_step)):
            targets = torch.stack([batch.n_targets for batch in step]).sum()
            for batch in step:
                yield batch._replace(step_targets=targets)


def collate_sequences(
    examples: Sequence[tuple[np.ndarray, float]], *, channels: bool = False, dtype: torch.dtype = torch.int64
) -> Batch:
    """Right-pad sequences (L,), or pairs of sequences (2, L), with 0 to the longest of the batch.

    channels  they are (L, channels)
    dtype     of the labels: float32 for numbers to be predicted
    """
    labels = torch.tensor([label for _, label in examples], dtype=dtype)
    return Batch(*_pad_inputs([inputs for inputs, _ in examples], channels), labels)


def collate_labelled(examples: Sequence[tuple[np.ndarray, np.ndarray]], *, channels: bool = False) -> Batch:
    """The same with a label for each position, IGNORE at pads."""
    labels = _padded([labels for _, labels in examples], IGNORE)
    return Batch(*_pad_inputs([inputs for inputs, _ in examples], channels), labels)


def _pad_inputs(examples: Sequence[np.ndarray], channels: bool) -> tuple[Tensor, Tensor | None]:
    """Inputs and mask of a batch."""
    arrays = [np.asarray(inputs) for inputs in examples]
    lengths = [len(array) if channels else array.shape[-1] for array in arrays]
    longest = max(lengths)
    shape = (longest, arrays[0].shape[1]) if channels else (*arrays[0].shape[:-1], longest)
    real = np.issubdtype(arrays[0].dtype, np.floating)
    inputs = np.zeros((len(arrays), *shape), dtype=np.float32 if real else np.int64)
    for row, array, length in zip(inputs, arrays, lengths, strict=True):
        row[(slice(length),) if channels else (..., slice(length))] = array
    tensor = torch.from_numpy(inputs)
    if arrays[0].ndim == 2 and not channels:
        return tensor, tensor != 0
    if min(lengths) == longest:
        return tensor, None
    return tensor, torch.arange(longest) < torch.tensor(lengths)[:, None]


@dataclass(frozen=True)
class QuestionCollator:
    """Questions -> a batch under one objective: inputs right-padded with 0, labels with IGNORE. Picklable."""

    objective: Objective
    specials: Specials

    def __call__(self, questions: Sequence[Question]) -> Batch:
        rows = [lay_out(question, self.objective, self.specials) for question in questions]
        inputs = _padded([row.inputs for row in rows], 0)
        lengths = torch.tensor([len(row.inputs) for row in rows])
        mask = None
        if int(lengths.min()) < inputs.shape[1]:
            mask = torch.arange(inputs.shape[1]) < lengths[:, None]
        targets = [row.target for row in rows if row.target is not None]
        return Batch(
            inputs,
            mask,
            _padded([row.labels for row in rows], IGNORE),
            target=_padded(targets, self.specials.end) if targets else None,
            fresh=torch.tensor([row.fresh for row in rows]),
            groups=torch.tensor([row.group for row in rows]),
        )


def _padded(rows: Sequence[np.ndarray], value: int) -> Tensor:
    """(B, longest) int64"""
    out = np.full((len(rows), max(len(row) for row in rows)), value, np.int64)
    for into, row in zip(out, rows, strict=True):
        into[: len(row)] = row
    return torch.from_numpy(out)
