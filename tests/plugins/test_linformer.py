"""Linformer: what the equation implies and what its errors say."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import ConfigError, registry
from zoo.ops.attention import attention
from zoo_linformer.config import LinformerConfig
from zoo_linformer.op import compress, linformer_attention

FEW = settings(max_examples=25, deadline=None)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(config: LinformerConfig, *, n_layers: int = 2, max_len: int = 24) -> torch.nn.Module:
    torch.manual_seed(0)
    record = registry().architecture("linformer").record
    return record.build(config, d_model=16, n_layers=n_layers, mode="bidirectional", max_len=max_len).double().eval()


@FEW
@given(batch=st.integers(1, 3), heads=st.integers(1, 4), length=st.integers(1, 20), per_head=st.booleans())
def test_as_many_slots_as_positions_and_no_mixing_is_attention(
    batch: int, heads: int, length: int, per_head: bool
) -> None:
    q, k, v = (noise(batch, heads, length, 4, seed=s) for s in (1, 2, 3))
    E = torch.eye(length, dtype=torch.float64)
    E = E.expand(heads, -1, -1) if per_head else E
    torch.testing.assert_close(linformer_attention(q, k, v, E, E), attention(q, k, v), rtol=1e-9, atol=1e-11)


@FEW
@given(length=st.integers(1, 24), k=st.integers(1, 9), heads=st.integers(1, 3))
def test_compression_is_the_matrix_product(length: int, k: int, heads: int) -> None:
    E, x = noise(k, 24), noise(2, heads, length, 5, seed=1)
    torch.testing.assert_close(compress(E, x), E[:, :length] @ x)
    torch.testing.assert_close(compress(E, x[:, 0]), E[:, :length] @ x[:, 0])
    each = noise(heads, k, 24)
    torch.testing.assert_close(compress(each, x), each[:, :, :length] @ x)


def test_compressing_before_and_after_agree_without_biases() -> None:
    before = build(LinformerConfig(k=6, compress="before", bias=False, share_kv=False))
    after = build(LinformerConfig(k=6, compress="after", bias=False, share_kv=False))
    after.load_state_dict(before.state_dict())
    x, mask = noise(3, 20, 16), torch.arange(20) < torch.tensor([20, 7, 0])[:, None]
    torch.testing.assert_close(before(x, mask=mask).hidden, after(x, mask=mask).hidden, rtol=1e-9, atol=1e-11)


def test_one_matrix_for_all_layers_stays_one() -> None:
    shared = build(LinformerConfig(k=6, share_layers=True), n_layers=3)
    assert sum(p.numel() for p in shared.parameters() if p.shape == (6, 24)) == 6 * 24
    twin = copy.deepcopy(shared)
    assert twin.stack.blocks[0].mixer.E is twin.stack.blocks[2].mixer.E
    apart = build(LinformerConfig(k=6), n_layers=3)
    assert sum(p.numel() for p in apart.parameters() if p.shape == (6, 24)) == 3 * 6 * 24
    # two models of one process share nothing (a class attribute in a published implementation did)
    assert shared.stack.blocks[0].mixer.E is not build(LinformerConfig(k=6, share_layers=True)).stack.blocks[0].mixer.E


def test_a_longer_sequence_is_refused_with_both_numbers() -> None:
    for compress_at in ("before", "after"):
        with pytest.raises(ValueError, match=r"25 tokens.* made for 24"):
            build(LinformerConfig(k=6, compress=compress_at))(noise(1, 25, 16))


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        (LinformerConfig(n_heads=3), "arch.n_heads", "3 does not divide d_model 16"),
        (LinformerConfig(n_heads=3, d_qkv=8), "arch.n_heads", "3 does not divide d_qkv 8"),
        (LinformerConfig(k=25), "arch.k", "at most max_len 24 compressed positions, got 25"),
        (LinformerConfig(k=6, compress="during"), "arch.compress", r"expected after \| before, got 'during'"),
        (LinformerConfig(k=6, per_head=True, compress="before"), "arch.per_head", "use compress=after"),
        (LinformerConfig(k=6, share_layers=True, share_kv=False), "arch.share_layers", "set share_kv"),
        (LinformerConfig(k=6, dropout=1.0), "arch.dropout", r"\[0, 1\), got 1.0"),
    ],
)
def test_impossible_configurations_name_key_and_numbers(config: LinformerConfig, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(config)
    assert caught.value.key == key


def test_there_is_no_causal_form() -> None:
    with pytest.raises(ConfigError, match="no causal form"):
        registry().architecture("linformer").record.build(d_model=16, n_layers=1, mode="causal", max_len=64)
