"""The encoder of a live transformers Longformer and ours, with its weights, on the same embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LongformerConfig, LongformerModel

from tests.parity.live import copy_backbone
from zoo import ConfigError, ModelDims
from zoo.spec.registry import registry
from zoo_longformer.convert import CONVERSION


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 45),
    lengths=st.lists(st.integers(1, 45), min_size=1, max_size=3),
    windows=st.lists(st.sampled_from([4, 8, 16]), min_size=1, max_size=3),
    heads=st.integers(1, 3),
    activation=st.sampled_from(["gelu", "gelu_new", "relu"]),
    seed=st.integers(0, 100),
)
def test_hidden_states_are_those_of_transformers(
    length: int, lengths: list[int], windows: list[int], heads: int, activation: str, seed: int
) -> None:
    torch.manual_seed(seed)
    theirs = LongformerModel(
        LongformerConfig(
            vocab_size=20,
            hidden_size=4 * heads,
            num_hidden_layers=len(windows),
            num_attention_heads=heads,
            intermediate_size=10,
            attention_window=windows,
            hidden_act=activation,
            max_position_embeddings=64,
            initializer_range=0.5,
        ),
        add_pooling_layer=False,
    )
    theirs = theirs.double().eval()
    ours = copy_backbone("longformer", CONVERSION, theirs)

    mask = torch.arange(length) < torch.tensor(lengths)[:, None]  # right padding, every row at least one token
    first = torch.zeros_like(mask, dtype=torch.int64)
    first[:, 0] = 1
    embedded: list[torch.Tensor] = []
    theirs.embeddings.register_forward_hook(lambda module, args, out: embedded.append(out))
    ids = torch.where(mask, torch.randint(2, 20, mask.shape), 1)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), global_attention_mask=first).last_hidden_state
        hidden = ours(embedded[-1][:, :length], mask=mask).hidden
    # its softmax is in float32
    torch.testing.assert_close(hidden[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_both_directions_of_a_configuration() -> None:
    architecture = registry().architecture("longformer").record
    hf_config = LongformerConfig(attention_window=[4, 8], num_hidden_layers=2).to_dict()
    values, dims = CONVERSION.import_config(hf_config)
    config = architecture.load_config()(**values)
    assert CONVERSION.import_config(CONVERSION.export_config(config, dims)) == (values, dims)


@pytest.mark.parametrize(
    "fields",
    [{"prenorm": True}, {"counts_self": True}, {"dilation": [2]}, {"bias": False}, {"n_global": 0}, {"d_qkv": 4}],
)
def test_what_transformers_does_not_have_is_refused(fields: dict[str, Any]) -> None:
    architecture = registry().architecture("longformer").record
    config = architecture.load_config()(**{"prenorm": False} | fields)
    with pytest.raises(ConfigError) as caught:
        CONVERSION.export_config(config, ModelDims(d_model=8, n_layers=1, mode="bidirectional", max_len=16))
    assert caught.value.key in fields


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ConfigError, match="gelu"):
        CONVERSION.import_config({"hidden_act": "tanh"})
