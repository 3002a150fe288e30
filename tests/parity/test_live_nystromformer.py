"""transformers' NystromformerModel, small and random, its weights copied through the plugin's own map."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import NystromformerConfig as TheirConfig
from transformers import NystromformerModel

from tests.parity.live import copy_backbone
from zoo import Backbone
from zoo_nystromformer.config import NystromformerConfig
from zoo_nystromformer.convert import CONVERSION

FEW = settings(max_examples=25, deadline=None)


def live(**options: object) -> NystromformerModel:
    """Their model with every parameter away from its initial value, so that no zero hides a fault."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NystromformerModel(TheirConfig(vocab_size=11, **options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def copied(model: NystromformerModel) -> Backbone:
    """Our backbone with their weights."""
    return copy_backbone("nystromformer", CONVERSION, model)


def both(model: NystromformerModel, lengths: list[int], seq_len: int) -> tuple[Tensor, Tensor]:
    """(theirs, ours) of the encoder from the same embeddings.

    The mask is given to the encoder as one row per example, as its layers need it: the model around them makes (L, L)
    of it, which does not fit the scores of landmarks (transformers 5.23).
    """
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, 11, (len(lengths), seq_len), generator=generator)
    mask = torch.arange(seq_len) < torch.tensor(lengths)[:, None]
    backbone = copied(model)
    with torch.no_grad():
        x = model.embeddings(input_ids=tokens)
        hidden_keys = torch.zeros(mask.shape, dtype=x.dtype).masked_fill(~mask, torch.finfo(x.dtype).min)
        theirs = model.encoder(x, attention_mask=hidden_keys[:, None, None]).last_hidden_state
        ours = backbone(x, mask=mask).hidden
        if mask.all():
            torch.testing.assert_close(model(input_ids=tokens).last_hidden_state, theirs)
    return theirs, ours


heads_and_width = st.tuples(st.integers(1, 4), st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] * pair[1]))
kernels = st.sampled_from([1, 3, 5, 9, 15])


@FEW
@given(
    heads_width=heads_and_width,
    layers=st.integers(1, 3),
    landmarks=st.integers(2, 6),
    per_segment=st.integers(2, 7),
    kernel=kernels,
    activation=st.sampled_from(["gelu_new", "gelu", "relu", "silu"]),
    padding=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_landmarks(
    heads_width: tuple[int, int],
    layers: int,
    landmarks: int,
    per_segment: int,
    kernel: int,
    activation: str,
    padding: list[float],
) -> None:
    heads, width = heads_width
    seq_len = landmarks * per_segment
    model = live(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=2 * width + 1,
        hidden_act=activation,
        num_landmarks=landmarks,
        segment_means_seq_len=seq_len,
        max_position_embeddings=seq_len,
        conv_kernel_size=kernel,
    )
    theirs, ours = both(model, [max(1, round(part * seq_len)) for part in padding], seq_len)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@FEW
@given(
    heads_width=heads_and_width,
    seq_len=st.integers(1, 33),
    kernel=kernels,
    padding=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_exact_attention_at_any_length(
    heads_width: tuple[int, int], seq_len: int, kernel: int, padding: list[float]
) -> None:
    """num_landmarks = segment_means_seq_len, their default."""
    heads, width = heads_width
    model = live(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=2,
        intermediate_size=2 * width,
        num_landmarks=4,
        segment_means_seq_len=4,
        max_position_embeddings=40,
        conv_kernel_size=kernel,
    )
    theirs, ours = both(model, [max(1, round(part * seq_len)) for part in padding], seq_len)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("exact", [False, True])
def test_an_exported_configuration_is_the_original(exact: bool) -> None:
    model = live(
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=12,
        num_landmarks=64 if exact else 3,
        segment_means_seq_len=64 if exact else 15,
        max_position_embeddings=15,
        conv_kernel_size=5,
        attention_probs_dropout_prob=0.0,
    )
    theirs = model.config.to_dict()
    values, dims = CONVERSION.import_config(theirs)
    written = CONVERSION.export_config(NystromformerConfig(**values), dims)
    assert written == {key: theirs[key] for key in written}
    assert CONVERSION.import_config(written) == (values, dims)
