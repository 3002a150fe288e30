"""transformers' MambaModel and MambaForCausalLM, small and random, their weights copied through the plugin's map.

Their code casts to float32 whatever the weights are: norms, step sizes, the input's part of the recurrence, logits.
Here it runs with those casts left out (`Double`), so that the comparison is one of float64; one test runs it as it is.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import MambaConfig as TheirConfig
from transformers import MambaForCausalLM, MambaModel

import zoo
from tests.parity.live import copy_model, hf_config
from zoo import ConfigError, ModelDims
from zoo.convert import PretrainedModel
from zoo_mamba.config import MambaConfig
from zoo_mamba.convert import CONVERSION

FEW = settings(max_examples=20, deadline=None)
SAME = {"rtol": 1e-9, "atol": 1e-10}
SINGLE = {"rtol": 2e-5, "atol": 2e-5}
VOCAB = 11


class Double(TorchFunctionMode):
    """Casts from float64 to float32 do nothing. `left_out` counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        to_single = func is torch.Tensor.float or (func is torch.Tensor.to and torch.float32 in args)
        if to_single and args[0].dtype == torch.float64:
            self.left_out += 1
            return args[0]
        return func(*args, **(kwargs or {}))


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, Any]:
    width, expand = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    return {
        "hidden_size": width,
        "expand": expand,
        "intermediate_size": expand * width,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "state_size": draw(st.integers(1, 7)),
        "conv_kernel": draw(st.integers(1, 6)),
        "time_step_rank": draw(st.integers(1, min(3, expand * width)) | st.just("auto")),
        "use_bias": draw(st.booleans()),
        "use_conv_bias": draw(st.booleans()),
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 1e-2])),
        "vocab_size": VOCAB,
    }


lengths = st.integers(1, 33)


def live(cls: type, **options: Any) -> Any:
    """Their model with every parameter away from its initial value, so that no zero hides a fault."""
    torch.manual_seed(0)
    model = cls(TheirConfig(**options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def ours_from(theirs: Any) -> PretrainedModel:
    return copy_model("mamba", CONVERSION, theirs)


def inputs(batch: int, length: int, width: int) -> Tensor:
    return torch.randn(batch, length, width, dtype=torch.float64)


def same_states(actual: Any, cache: Any) -> None:
    """Every layer's carried state; each of ours has its counterpart in their cache."""
    assert len(actual) == len(cache.layers)
    for n, state in enumerate(actual):
        torch.testing.assert_close(state["conv"], cache.get_conv_state(n), **SAME)
        torch.testing.assert_close(state["ssm"], cache.get_recurrent_state(n), **SAME)


@FEW
@given(drawn=sizes(), length=lengths, batch=st.integers(1, 3))
def test_hidden_vectors_and_gradients(drawn: dict[str, Any], length: int, batch: int) -> None:
    theirs = live(MambaModel, **drawn)
    ours = ours_from(theirs).backbone
    x = inputs(batch, length, drawn["hidden_size"]).requires_grad_()
    with Double() as double:
        expected = theirs(inputs_embeds=x, use_cache=False).last_hidden_state
    assert double.left_out > 0
    actual = ours(x).hidden
    torch.testing.assert_close(actual, expected, **SAME)
    direction = torch.randn_like(expected)
    (their_gradient,) = torch.autograd.grad((expected * direction).sum(), x)
    (gradient,) = torch.autograd.grad((actual * direction).sum(), x)
    torch.testing.assert_close(gradient, their_gradient, **SAME)


@FEW
@given(drawn=sizes(), length=lengths, steps=st.integers(1, 9))
def test_the_carried_state_and_what_follows(drawn: dict[str, Any], length: int, steps: int) -> None:
    """Their cache after a prompt and after every further token, which is how they continue; ours by steps and whole."""
    theirs = live(MambaModel, **drawn)
    ours = ours_from(theirs).backbone
    x, more = inputs(2, length, drawn["hidden_size"]), inputs(2, steps, drawn["hidden_size"])
    with torch.no_grad(), Double():
        cache = theirs(inputs_embeds=x, use_cache=True).cache_params
        state = ours(x).state
        same_states(state, cache)
        whole = ours(more, state=state)
        expected = []
        for t in range(steps):
            out = theirs(inputs_embeds=more[:, t : t + 1], use_cache=True, cache_params=cache)
            expected.append(out.last_hidden_state[:, 0])
            cache = out.cache_params
            y, state = ours.step(more[:, t], state)
            torch.testing.assert_close(y, expected[-1], **SAME)
            same_states(state, cache)
        torch.testing.assert_close(whole.hidden, torch.stack(expected, 1), **SAME)
        same_states(whole.state, cache)


@FEW
@given(drawn=sizes(), data=st.data())
def test_pads(drawn: dict[str, Any], data: st.DataObject) -> None:
    """Pads on both sides. Their pads reach real tokens on their right when the projections have biases, and decay the
    state on their left; ours do neither (tests/plugins), so that biases come with pads behind only, states with pads in
    front."""
    length = data.draw(lengths)
    most = 0 if drawn["use_bias"] else length - 1
    front = torch.tensor(data.draw(st.lists(st.integers(0, most), min_size=1, max_size=3)))
    behind = torch.tensor([data.draw(st.integers(0, length - 1 - n)) for n in front.tolist()])
    position = torch.arange(length)
    mask = (position >= front[:, None]) & (position < length - behind[:, None])
    theirs = live(MambaModel, **drawn)
    ours = ours_from(theirs).backbone
    x = inputs(len(mask), length, drawn["hidden_size"])
    with torch.no_grad(), Double():
        out = theirs(inputs_embeds=x, attention_mask=mask.long(), use_cache=True)
        actual = ours(x, mask=mask)
    torch.testing.assert_close(actual.hidden[mask], out.last_hidden_state[mask], **SAME)
    if not behind.any():
        same_states(actual.state, out.cache_params)


@FEW
@given(drawn=sizes(), length=lengths, tied=st.booleans())
def test_language_model(drawn: dict[str, Any], length: int, tied: bool) -> None:
    theirs = live(MambaForCausalLM, tie_word_embeddings=tied, **drawn)
    ids = torch.randint(0, VOCAB, (2, length))
    with torch.no_grad(), Double():
        expected = theirs(ids, use_cache=True)
        actual = ours_from(theirs)(ids)
    assert expected.logits.dtype == torch.float64
    torch.testing.assert_close(actual.logits, expected.logits, **SAME)
    same_states(actual.state, expected.cache_params)


def test_their_code_as_it_is_differs_by_float32_rounding_only() -> None:
    theirs = live(MambaForCausalLM, hidden_size=8, num_hidden_layers=2, state_size=4, vocab_size=VOCAB)
    ids = torch.randint(0, VOCAB, (3, 29))
    with torch.no_grad():
        expected, actual = theirs(ids).logits, ours_from(theirs)(ids).logits
    assert expected.dtype == torch.float32
    torch.testing.assert_close(actual, expected.double(), **SINGLE)
    assert not torch.equal(actual, expected.double())


@FEW
@given(drawn=sizes())
def test_an_exported_configuration_builds_the_same_model(drawn: dict[str, Any]) -> None:
    theirs = MambaModel(TheirConfig(**drawn))
    values, dims = CONVERSION.import_config(hf_config(theirs))
    config = MambaConfig(**values)
    written = CONVERSION.export_config(config, dims)
    resolved = config.resolved_dt_rank(drawn["hidden_size"])
    assert CONVERSION.import_config(written) == ({**values, "dt_rank": resolved}, dims)
    model = MambaModel(TheirConfig(**{**hf_config(theirs), **written}))
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "relu"), ("intermediate_size", 7)])
def test_an_unsupported_value_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=str(value)) as error:
        CONVERSION.import_config({**TheirConfig().to_dict(), key: value})
    assert error.value.key == key


def test_a_layer_norm_is_not_exported() -> None:
    dims = ModelDims(d_model=8, n_layers=1, mode="causal", max_len=9)
    with pytest.raises(ConfigError, match="norm='rms'"):
        CONVERSION.export_config(MambaConfig(norm="layer"), dims)


def test_greedy_generation_is_theirs() -> None:
    theirs = live(MambaForCausalLM, hidden_size=8, num_hidden_layers=2, state_size=4, vocab_size=VOCAB)
    tokens = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(1))
    with Double():
        expected = theirs.generate(tokens, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(zoo.generate(ours_from(theirs), tokens, 12), expected[:, 7:])
