"""LongT5: block sums, both attentions against loops, the decoder's cache, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo import Backbone, ConfigError, ModelDims
from zoo.nn import parameters_with_options
from zoo.ops.positions import t5_buckets
from zoo_longt5 import zoo_architectures
from zoo_longt5.backbone import Encoder, LongT5Backbone, SparseAttention
from zoo_longt5.config import LongT5Config
from zoo_longt5.op import block_sums

D = 8
SMALL: dict[str, Any] = {"n_heads": 2, "local_radius": 3, "global_block": 4, "n_buckets": 8, "max_distance": 20}


def build(mode: str = "bidirectional", n_layers: int = 2, **config: Any) -> LongT5Backbone:
    torch.manual_seed(0)
    dims = ModelDims(d_model=D, n_layers=n_layers, mode=mode, max_len=64)
    backbone = LongT5Backbone(LongT5Config(**(SMALL | config)), dims).double().eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, float(parameter.ndim == 1), 0.5)
    return backbone


def tokens(length: int, batch: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ragged(length: int, *lengths: int) -> Tensor:
    return torch.arange(length) < torch.tensor(lengths)[:, None]


# -- the sums ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 40), G=st.integers(1, 12), real=st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_block_sums_are_the_loop(length: int, G: int, real: list[int]) -> None:
    real = [min(n, length) for n in real]
    x = tokens(length, len(real))
    sums, is_block, block = block_sums(x.masked_fill(~ragged(length, *real)[..., None], 1e6), ragged(length, *real), G)
    assert sums.shape == (len(real), length // G, D)
    for b, n in enumerate(real):
        full = n // G
        assert is_block[b].tolist() == [g < full for g in range(length // G)]
        expected = torch.zeros(length // G, D, dtype=torch.float64)
        for i in range(n if full else 0):
            c = min(i // G, full - 1)
            assert block[b, i] == c
            expected[c] += x[b, i]
        torch.testing.assert_close(sums[b], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(block_sums(x, None, G), block_sums(x, torch.ones(len(x), length, dtype=torch.bool), G))


def test_sums_of_half_precision_are_made_in_float32() -> None:
    x = torch.full((1, 1024, 1), 1.0, dtype=torch.bfloat16)  # 1024 ones: bfloat16 would stop at 256
    assert block_sums(x, None, 512)[0].tolist() == [[[512.0], [512.0]]]


# -- attention -----------------------------------------------------------------------------------------------------


def by_loops(encoder: Encoder, layer: SparseAttention, x: Tensor, n: int) -> Tensor:
    """One row of n real tokens, x (n, D), written from the paper's words."""
    c, H, E = encoder.config, layer.n_heads, layer.d_head

    def bucket(lag: int) -> int:
        lags = torch.tensor([lag])
        return int(t5_buckets(lags, bidirectional=True, n_buckets=c.n_buckets, max_distance=c.max_distance))

    G, out = c.global_block, torch.zeros(n, H, E, dtype=x.dtype)
    full = n // G if layer.global_norm is not None else 0
    u = []
    for g in range(full):
        stop = n if g == full - 1 else (g + 1) * G
        total = x[g * G : stop].sum(0)
        u.append(layer.global_norm.weight * total / (total.square().mean() + c.norm_eps).sqrt())
    q, k, v = ((x @ w.weight.T).view(n, H, E) for w in (layer.q, layer.k, layer.v))
    for i in range(n):
        for h in range(H):
            near = [j for j in range(n) if abs(i - j) <= c.local_radius]
            scores = [q[i, h] @ k[j, h] + encoder.bias.table[bucket(j - i), h] for j in near]
            values = [v[j, h] for j in near]
            for g in range(full):
                key, value = ((u[g] @ w.weight.T).view(H, E)[h] for w in (layer.k, layer.v))
                own = min(i // G, full - 1)
                scores.append(q[i, h] @ key + encoder.global_bias.table[bucket(g - own), h])
                values.append(value)
            out[i, h] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out.flatten(1) @ layer.out.weight.T


@pytest.mark.parametrize("attention", ["local", "transient_global"])
@pytest.mark.parametrize("length", [1, 3, 4, 11, 21])
def test_attention_is_the_papers(attention: str, length: int) -> None:
    """Lengths below the radius and below a block among them; rows without any global beside rows with some."""
    encoder = build(n_layers=1, attention=attention).encoder
    layer = encoder.layers[0].attention
    lengths = (length, max(length - 5, 1), min(length, 3))
    x, mask = tokens(length), ragged(length, *lengths)
    bias, global_bias = encoder.biases(length)
    y, _ = layer(x, mask=mask, bias=bias, global_bias=global_bias)
    for b, n in enumerate(lengths):
        torch.testing.assert_close(y[b, :n], by_loops(encoder, layer, x[b, :n], n), rtol=1e-10, atol=1e-12)


def reach(backbone: Backbone, length: int, token: int) -> list[int]:
    x = tokens(length, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(backbone(x).hidden[0, token].sum(), x)
    return gradient[0].abs().amax(-1).nonzero().flatten().tolist()


def test_local_attention_reaches_its_radius_per_layer_and_globals_reach_everything() -> None:
    assert reach(build(n_layers=1, attention="local"), 20, 10) == list(range(7, 14))
    assert reach(build(n_layers=2, attention="local"), 20, 10) == list(range(4, 17))
    assert reach(build(n_layers=1), 20, 10) == list(range(20))


def test_all_layers_share_the_bias_tables_and_none_their_global_norms() -> None:
    names = dict(build(n_layers=3).named_parameters())
    assert sorted(n for n in names if "table" in n) == ["encoder.bias.table", "encoder.global_bias.table"]
    assert sum("global_norm" in n for n in names) == 3
    local = dict(build(n_layers=3, attention="local").named_parameters())
    assert set(names) - set(local) == {"encoder.global_bias.table"} | {n for n in names if "global_norm" in n}


def test_nothing_quadratic_is_kept() -> None:
    """Neither scores nor the global bias: of (M, M) only its 2M - 1 distances."""

    def kept(length: int) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        backbone = build(n_layers=1, global_block=2)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            hidden = backbone(tokens(length, 1)).hidden
        assert hidden.requires_grad
        return sum(sizes.values())

    assert kept(2048) < 2.1 * kept(1024)


# -- the decoder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_decoder_layers", [0, 1, 3])
def test_token_by_token_equals_at_once(n_decoder_layers: int) -> None:
    backbone = build("seq2seq", n_decoder_layers=n_decoder_layers)
    assert backbone.decoder is not None
    assert len(backbone.decoder.layers) == (n_decoder_layers or 2)
    x, mask, y = tokens(13), ragged(13, 13, 6, 0), tokens(25, seed=2)
    memory = backbone(x, mask=mask).hidden
    whole = backbone.decode(y, memory=memory, memory_mask=mask)
    state, steps = backbone.init_state(3, device="cpu", dtype=torch.float64), []
    for t in range(25):
        out = backbone.decode(y[:, t : t + 1], memory=memory, memory_mask=mask, state=state)
        state = out.state
        steps.append(out.hidden)
    torch.testing.assert_close(torch.cat(steps, 1), whole.hidden, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state, whole.state, rtol=1e-11, atol=1e-11)


def test_a_step_projects_no_source_token() -> None:
    backbone = build("seq2seq")
    memory, y, projected = tokens(13), tokens(4, seed=2), list[int]()
    assert backbone.decoder is not None
    for layer in backbone.decoder.layers:
        for part in (layer.cross_attention.k, layer.cross_attention.v):
            part.register_forward_hook(lambda module, args, out: projected.append(out.shape[1]))
    first = backbone.decode(y[:, :1], memory=memory)
    assert projected == []
    backbone.decode(y, memory=memory)  # as many tokens as a head is wide
    assert projected == [13] * 4
    assert first.hidden.shape == (3, 1, D)


def test_decoder_counts_distances_beyond_the_last_bucket_and_across_the_cut() -> None:
    """The bias of a cached key is that of its distance, however the target was cut."""
    backbone = build("seq2seq")
    decoder = backbone.decoder
    assert decoder is not None
    for P, T in ((0, 5), (3, 4), (30, 1)):
        bias, visible = decoder.positions(P, T, torch.device("cpu"))
        assert bias.shape == (2, T, P + T)
        for t in range(T):
            for j in range(P + T):
                lag = j - (P + t)
                assert visible[t, j] == (lag <= 0)
                bucket = t5_buckets(torch.tensor(lag), bidirectional=False, n_buckets=8, max_distance=20)
                assert torch.equal(bias[:, t, j], decoder.bias.table[bucket])


def test_a_source_without_real_tokens_gives_nothing_to_the_decoder() -> None:
    backbone = build("seq2seq", n_layers=1)
    y, memory = tokens(4, 1), tokens(6, 1, seed=3)
    blind = torch.zeros(1, 6, dtype=torch.bool)
    hidden = backbone.decode(y, memory=memory, memory_mask=blind).hidden
    assert torch.equal(hidden, backbone.decode(y, memory=memory + 1, memory_mask=blind).hidden)
    assert not torch.equal(hidden, backbone.decode(y, memory=memory).hidden)


def test_decoder_refuses_what_does_not_fit() -> None:
    backbone = build("seq2seq")
    y, memory = tokens(4), tokens(6, seed=3)
    state = backbone.decode(y, memory=memory).state
    with pytest.raises(ValueError, match=r"2 given with an input of batch size 3"):
        backbone.decode(y, memory=memory[:2])
    with pytest.raises(ValueError, match=r"mask of shape \(3, 5\) for a memory of \(3, 6\)"):
        backbone.decode(y, memory=memory, memory_mask=torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"a memory of shape \(3, 6, 6\), expected \(batch, seq_len, 8\)"):
        backbone.decode(y, memory=memory[..., :6])
    with pytest.raises(ValueError, match=r"batch size 3 given with an input of batch size 2"):
        backbone.decode(y[:2], memory=memory[:2], state=state)
    for other in (build("seq2seq", n_decoder_layers=1), build("seq2seq", n_heads=4)):
        with pytest.raises(ValueError, match="another architecture or configuration"):
            other.decode(y, memory=memory, state=state)
    with pytest.raises(ValueError, match="carries no state"):
        backbone(memory, state=state)
    with pytest.raises(TypeError, match="mode bidirectional has no decoder"):
        build().decode(y, memory=memory)


# -- sizes, initialisation, dropout --------------------------------------------------------------------------------


def test_initialisation_is_the_papers() -> None:
    (arch,) = zoo_architectures()
    torch.manual_seed(0)
    dims = ModelDims(d_model=144, n_layers=1, mode="seq2seq", max_len=8)
    p = dict(arch.build(LongT5Config(n_heads=9, d_kv=25, n_buckets=128, max_distance=500), dims).named_parameters())
    d_ff = p["encoder.layers.0.ffn.wo.weight"].shape[1]
    assert d_ff == 384
    for stack in ("encoder.layers.0.attention", "decoder.layers.0.self_attention", "decoder.layers.0.cross_attention"):
        for name, std in (("q", (144 * 25) ** -0.5), ("k", 1 / 12), ("v", 1 / 12), ("out", 1 / 15)):
            assert p[f"{stack}.{name}.weight"].std().item() == pytest.approx(std, rel=0.03)
    for stack in ("encoder", "decoder"):
        for name, std in (("wi_0", 1 / 12), ("wi_1", 1 / 12), ("wo", d_ff**-0.5)):
            assert p[f"{stack}.layers.0.ffn.{name}.weight"].std().item() == pytest.approx(std, rel=0.03)
        assert p[f"{stack}.bias.table"].std().item() == pytest.approx(1 / 12, rel=0.1)
        assert bool((p[f"{stack}.final_norm.weight"] == 1).all())
    assert not [name for name in p if name.endswith("bias")]


def test_learning_rates_follow_what_stands_in_place_of_the_scale() -> None:
    marks = {name: mark for name, _, mark in parameters_with_options(build("seq2seq", bias_lr_scale=10.0))}
    tables = [mark for name, mark in marks.items() if name.endswith("table")]
    assert [(m.lr_scale, m.weight_decay) for m in tables] == [(10.0, 0.0)] * 3
    queries = [mark for name, mark in marks.items() if name.endswith(".q.weight")]
    assert [(m.lr_scale, m.weight_decay) for m in queries] == [(0.5, None)] * 6  # heads of 4
    assert marks["encoder.layers.0.attention.k.weight"].lr_scale is None


def test_published_base_model_has_its_size() -> None:
    """12 + 12 layers, d_model 768, 12 heads of 64, d_ff 2048: what our defaults make of its width and depth."""
    (arch,) = zoo_architectures()
    config = LongT5Config(n_heads=12, d_kv=64, d_ff=2048)
    with torch.device("meta"):
        backbone = arch.build(config, ModelDims(d_model=768, n_layers=12, mode="seq2seq", max_len=16384))
    assert config.ffn_width(768) == LongT5Config().ffn_width(768) == 2048
    attention, ffn, norm = 4 * 768 * 768, 3 * 768 * 2048, 768
    encoder = 12 * (attention + ffn + 3 * norm) + norm + 2 * 32 * 12
    decoder = 12 * (2 * attention + ffn + 3 * norm) + norm + 32 * 12
    assert sum(p.numel() for p in backbone.parameters()) == encoder + decoder


def test_dropout_is_on_in_training_only() -> None:
    backbone = build("seq2seq", dropout=0.3)
    x, y = tokens(20), tokens(6, seed=2)
    memory = backbone(x).hidden
    assert torch.equal(memory, build("seq2seq")(x).hidden)
    backbone.train()
    assert not torch.equal(backbone(x).hidden, backbone(x).hidden)
    first, second = (backbone.decode(y, memory=memory).hidden for _ in range(2))
    assert not torch.equal(first, second)
    assert first.isfinite().all()


def test_relu_form_has_one_matrix_in() -> None:
    names = dict(build(ffn="relu", d_ff=12).named_parameters())
    assert names["encoder.layers.0.ffn.wi.weight"].shape == (12, D)
    assert not [n for n in names if "wi_" in n]


@pytest.mark.parametrize(
    ("config", "dims", "key"),
    [
        ({"n_heads": 3}, {}, "arch.n_heads"),
        ({"n_heads": 0}, {}, "arch.n_heads"),
        ({"d_kv": -1}, {}, "arch.d_kv"),
        ({"d_ff": -1}, {}, "arch.d_ff"),
        ({"local_radius": 0}, {}, "arch.local_radius"),
        ({"global_block": 0}, {}, "arch.global_block"),
        ({"n_decoder_layers": -1}, {}, "arch.n_decoder_layers"),
        ({"attention": "global"}, {}, "arch.attention"),
        ({"ffn": "gelu"}, {}, "arch.ffn"),
        ({"n_buckets": 7}, {}, "arch.n_buckets"),
        ({"n_buckets": 2}, {}, "arch.n_buckets"),
        ({"max_distance": 8}, {}, "arch.max_distance"),
        ({"max_distance": 16}, {"mode": "seq2seq"}, "arch.max_distance"),
        ({"norm_eps": 0.0}, {}, "arch.norm_eps"),
        ({"bias_lr_scale": 0.0}, {}, "arch.bias_lr_scale"),
        ({"dropout": 1.0}, {}, "arch.dropout"),
        ({}, {"mode": "causal"}, "model.mode"),
    ],
)
def test_impossible_configurations_are_named(config: dict[str, Any], dims: dict[str, Any], key: str) -> None:
    (arch,) = zoo_architectures()
    with pytest.raises(ConfigError) as error:
        arch.build(
            LongT5Config(**config),
            ModelDims(**{"d_model": 8, "n_layers": 1, "mode": "bidirectional", "max_len": 8, **dims}),
        )
    assert error.value.key == key
    numbers = [str(v) for v in config.values()]
    assert all(n in str(error.value) for n in numbers)


def test_heads_of_any_width_serve_a_width_that_heads_do_not_divide() -> None:
    backbone = build(n_heads=3, d_kv=5)
    assert backbone(tokens(9)).hidden.shape == (3, 9, D)
    assert bool(backbone(tokens(9)).hidden.isfinite().all())
