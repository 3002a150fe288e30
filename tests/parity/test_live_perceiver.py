"""transformers' PerceiverModel and its text models, small and random, their weights copied through the plugin's map."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PerceiverConfig as TheirConfig
from transformers import PerceiverForMaskedLM, PerceiverForSequenceClassification, PerceiverModel

from tests.parity.live import build_ours, copy_model, hf_config
from zoo import ConfigError, DataError, ModelDims
from zoo.convert import PretrainedModel, convert
from zoo_perceiver.config import PerceiverConfig
from zoo_perceiver.convert import CONVERSION

FEW = settings(max_examples=20, deadline=None)
SAME = {"rtol": 1e-9, "atol": 1e-10}
VOCAB = 11
SMALL = {"num_latents": 3, "num_self_attention_heads": 2, "num_cross_attention_heads": 2, "max_position_embeddings": 9}
CLASSES = [PerceiverModel, PerceiverForMaskedLM, PerceiverForSequenceClassification]


@st.composite
def sizes(draw: st.DrawFn, of_eight: bool = False) -> dict[str, Any]:
    """`of_eight`: the width of the input is a multiple of the eight heads of their masked language model's decoder."""
    heads, cross_heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    both = math.lcm(heads, cross_heads)
    d_latents = both * draw(st.integers(1, 12 // both))
    channels = draw(st.sampled_from(["given", "q", "kv"]))
    unit = 8 if of_eight else 1
    unit = math.lcm(unit, cross_heads) if channels == "kv" else unit
    given_channels = {"qk_channels": both * draw(st.integers(1, 3)), "v_channels": d_latents}
    return {
        "d_model": unit * draw(st.integers(1, max(1, 12 // unit))),
        "d_latents": d_latents,
        "num_latents": draw(st.integers(1, 7)),
        "num_blocks": draw(st.integers(1, 3)),
        "num_self_attends_per_block": draw(st.integers(1, 3)),
        "num_self_attention_heads": heads,
        "num_cross_attention_heads": cross_heads,
        "self_attention_widening_factor": draw(st.integers(1, 3)),
        "cross_attention_widening_factor": draw(st.integers(1, 3)),
        "use_query_residual": draw(st.booleans()),
        "hidden_act": draw(st.sampled_from(["gelu", "relu", "gelu_new"])),
        "cross_attention_shape_for_attention": "q" if channels == "q" else "kv",
        "max_position_embeddings": 33,
        "vocab_size": VOCAB,
    } | (given_channels if channels == "given" else {})


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """(B, L) with a real token in every row, pads wherever they fall."""
    length = draw(st.integers(1, 33))
    rows = st.lists(st.booleans(), min_size=length, max_size=length).filter(any)
    return torch.tensor(draw(st.lists(rows, min_size=1, max_size=3)))


def live(cls: type, **options: Any) -> Any:
    """Their model with every parameter away from its initial value, so that no zero hides a fault."""
    torch.manual_seed(0)
    model = cls(TheirConfig(**options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def ours_from(theirs: Any) -> PretrainedModel:
    return copy_model("perceiver", CONVERSION, theirs)


@FEW
@given(drawn=sizes(), mask=masks())
def test_latents_and_the_gradient_of_the_input(drawn: dict[str, Any], mask: Tensor) -> None:
    theirs = live(PerceiverModel, **drawn)
    ours = ours_from(theirs)
    x = torch.randn(*mask.shape, drawn["d_model"], dtype=torch.float64).requires_grad_()
    expected = theirs(x, attention_mask=mask.long()).last_hidden_state
    actual = ours(x, mask).logits
    assert actual.shape == (len(mask), drawn["num_latents"], drawn["d_latents"])
    torch.testing.assert_close(actual, expected, **SAME)
    direction = torch.randn_like(expected)
    (their_gradient,) = torch.autograd.grad((expected * direction).sum(), x)
    (gradient,) = torch.autograd.grad((actual * direction).sum(), x)
    torch.testing.assert_close(gradient, their_gradient, **SAME)
    if mask.all():
        torch.testing.assert_close(ours(x).logits, expected, **SAME)


@FEW
@given(drawn=sizes(of_eight=True), mask=masks())
def test_masked_language_model(drawn: dict[str, Any], mask: Tensor) -> None:
    """As theirs it answers for every position that it was built with, whatever the length of the call."""
    theirs = live(PerceiverForMaskedLM, **drawn)
    ids = torch.randint(0, VOCAB, mask.shape)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long()).logits
        actual = ours_from(theirs)(ids, mask).logits
    assert actual.shape == (len(mask), 33, VOCAB)
    torch.testing.assert_close(actual, expected, **SAME)


@FEW
@given(drawn=sizes(), mask=masks(), n_labels=st.integers(1, 4))
def test_classification(drawn: dict[str, Any], mask: Tensor, n_labels: int) -> None:
    theirs = live(PerceiverForSequenceClassification, num_labels=n_labels, **drawn)
    ids = torch.randint(0, VOCAB, mask.shape)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long()).logits
        actual = ours_from(theirs)(ids, mask).logits
    assert actual.shape == (len(mask), n_labels)
    torch.testing.assert_close(actual, expected, **SAME)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_tensor_of_the_published_sizes_has_its_place(cls: type) -> None:
    """deepmind/language-perceiver: 201,108,230 parameters as a masked language model."""
    with torch.device("meta"):
        theirs = cls(TheirConfig(qk_channels=256, v_channels=1280))
        ours = build_ours("perceiver", CONVERSION, theirs)
    shapes, their_shapes = ({k: v.shape for k, v in m.state_dict().items()} for m in (ours, theirs))
    assert {source.sources[0]: shapes[name] for name, source in ours.sources.items()} == their_shapes
    if cls is PerceiverForMaskedLM:
        assert sum(p.numel() for p in ours.parameters()) == 201_108_230


@FEW
@given(drawn=sizes())
def test_an_exported_configuration_builds_the_same_model(drawn: dict[str, Any]) -> None:
    with torch.device("meta"):
        theirs = PerceiverModel(TheirConfig(**drawn))
        values, dims = CONVERSION.import_config(hf_config(theirs))
        written = CONVERSION.export_config(PerceiverConfig(**values), dims)
        assert CONVERSION.import_config(written) == (values, dims)
        again = PerceiverModel(TheirConfig(**{**hf_config(theirs), **written}))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "silu"),
        ("cross_attention_shape_for_attention", "v"),
        ("architectures", ["PerceiverForOpticalFlow"]),
    ],
)
def test_an_unsupported_value_is_refused_by_name(key: str, value: Any) -> None:
    config = {**TheirConfig().to_dict(), key: value}
    with pytest.raises(ConfigError) as error:
        (CONVERSION.build_parts if key == "architectures" else CONVERSION.import_config)(config)
    assert error.value.key == key
    assert (value if isinstance(value, str) else value[0]) in error.value.message


@pytest.mark.parametrize(
    ("config", "mode", "key"),
    [
        ({}, "causal", "mode"),
        ({"activation": "squared_relu"}, "bidirectional", "activation"),
        ({"v_channels": 4}, "bidirectional", "v_channels"),
        ({"qk_channels": 4}, "bidirectional", "v_channels"),
    ],
)
def test_what_transformers_lacks_is_not_exported(config: dict[str, Any], mode: str, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        CONVERSION.export_config(PerceiverConfig(**config), ModelDims(d_model=8, n_layers=1, mode=mode, max_len=9))
    assert error.value.key == key


def test_a_decoder_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    model = live(PerceiverForSequenceClassification, d_model=4, d_latents=6, num_self_attends_per_block=1, **SMALL)
    model.save_pretrained(tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    del tensors["perceiver.decoder.decoder.output_position_encodings.position_embeddings"]
    tensors["perceiver.decoder.decoder.decoding_cross_attention.mlp.dense1.bias"] = torch.zeros(7)
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(DataError) as caught:
        convert("perceiver", tmp_path / "hf", tmp_path / "ours")
    text = str(caught.value)
    assert "2 tensors do not fit" in text
    assert "missing: perceiver.decoder.decoder.output_position_encodings.position_embeddings" in text
    assert "mlp.dense1.bias (7,), expected (6,) in our head.decoder.layer.mlp.linear1.bias" in text
    assert not (tmp_path / "ours").exists()
