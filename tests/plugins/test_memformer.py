"""Memformer: what the paper promises of the memory, and what is particular to this plugin."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.plugins.steps import assert_steps_equal_segments
from zoo import ConfigError, ModelDims
from zoo.model.segments import ActivationCheckpointing, SegmentPlan, drive
from zoo.nn.state import select_rows
from zoo.testing import ArchitectureSuite
from zoo_memformer import zoo_architectures
from zoo_memformer.backbone import BiasedWrite, MemformerBackbone
from zoo_memformer.config import MemformerConfig
from zoo_memformer.op import biased_normalisation, relative_bias, slot_attention

B, D, S = 3, 8, 5
WRITES = ("bmn", "gru")
MODES = ("causal", "bidirectional")


def build(mode: str = "bidirectional", n_layers: int = 2, d_model: int = D, **config: Any) -> MemformerBackbone:
    torch.manual_seed(0)
    (arch,) = zoo_architectures()
    config = {"n_heads": 2, "n_slots": S, **config}
    dims = ModelDims(d_model=d_model, n_layers=n_layers, mode=mode, max_len=16)
    if mode in arch.capabilities.modes:
        arch.check(MemformerConfig(**config), dims)
    return MemformerBackbone(MemformerConfig(**config), dims).double().eval()


def tokens(length: int, batch: int = B, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- replay ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("target", ["all", "last"])
def test_replay_equals_bptt(write: str, mode: str, dropout: float, target: str) -> None:
    """MRBP (activation checkpointing) gives the loss and gradients of BPTT, dropout and ragged rows included."""
    backbone = build(mode, write=write, dropout=dropout).train()
    mask = torch.arange(23) < torch.tensor([23, 4, 14])[:, None]
    results = []
    for replay in get_args(ActivationCheckpointing):
        backbone.zero_grad()
        x = tokens(23).requires_grad_()
        torch.manual_seed(3)
        segments = list(drive(backbone, x, mask, None, SegmentPlan(5, activation_checkpointing=replay)))
        if target == "last":  # through four memories; no other way leads to the early segments
            loss = (segments[-1].hidden[0] * tokens(3)[0]).sum() + segments[-1].state["memory"].square()[..., 0].sum()
        else:
            loss = sum((s.hidden * tokens(s.hidden.shape[1])).sum() for s in segments)  # type: ignore[assignment]
        loss.backward()
        assert x.grad is not None
        assert x.grad[0, :5].any()
        results.append({"loss": loss.detach(), "x": x.grad, **{n: p.grad for n, p in backbone.named_parameters()}})
    for other in results[1:]:
        for name, bptt in results[0].items():
            assert bptt is not None, name
            torch.testing.assert_close(other[name], bptt, rtol=1e-12, atol=1e-13, msg=name)


def test_mrbp_keeps_one_memory_per_segment_where_bptt_keeps_its_scores() -> None:
    backbone, x = build(), tokens(64)
    kept = {}
    for replay in ("none", "checkpoint"):
        total = 0
        own = {p.data_ptr() for p in backbone.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += 0 if tensor.data_ptr() in own else tensor.numel()  # noqa: B023
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            list(drive(backbone, x, None, None, SegmentPlan(16, activation_checkpointing=replay)))
        kept[replay] = total
    # four segments, and the slots that entered the three of them that had any
    assert kept["checkpoint"] == x.numel() + 3 * B * S * D
    assert kept["none"] > 10 * kept["checkpoint"]


def test_bptt_depth_cuts_the_gradient() -> None:
    backbone, x = build(), tokens(20).requires_grad_()
    for bptt, reach in ((1, 15), (2, 10), (None, 0)):
        *_, last = drive(backbone, x, None, None, SegmentPlan(5, tbptt=bptt))
        (gradient,) = torch.autograd.grad((last.hidden * tokens(5)).sum(), x)
        assert not gradient[:, :reach].any()
        assert gradient[:, reach : reach + 5].any()


# -- writing and forgetting ------------------------------------------------------------------------------------------


def test_slot_attention_is_attention_under_the_slots_mask() -> None:
    """Against a softmax over [slots; tokens] with all other slots masked out, by torch's own attention."""
    S, T, H, E = 4, 6, 2, 3
    q, k_own, v_own = (torch.randn(B, H, S, E, dtype=torch.float64) for _ in range(3))
    k, v = (torch.randn(B, H, T, E, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    seen = torch.cat([torch.eye(S, dtype=torch.bool).expand(B, S, S), mask[:, None].expand(B, S, T)], dim=2)
    keys, values = (torch.cat(pair, dim=2) for pair in ((k_own, k), (v_own, v)))
    expected = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[:, None], scale=1 / (E**0.5 * 0.3))
    ours = slot_attention(q, (k_own, v_own), (k, v), mask, temperature=0.3)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours[2], v_own[2], rtol=0, atol=0)


@pytest.mark.parametrize("write", WRITES)
def test_slots_do_not_see_each_other(write: str) -> None:
    backbone, x = build(write=write), tokens(6)
    memory = torch.randn(B, S, D, dtype=torch.float64, requires_grad=True)
    written = backbone.write(memory, x, None)
    (gradient,) = torch.autograd.grad(written[:, 2].sin().sum(), memory)
    assert gradient[:, 2].any()
    assert not gradient[:, [0, 1, 3, 4]].any()


def test_slots_stay_on_the_sphere_and_forget_towards_where_they_began() -> None:
    backbone = build()
    fresh = backbone.init_state(B, device="cpu", dtype=torch.float64)["memory"]
    state = backbone(tokens(7)).state
    ones = torch.ones(B, S, dtype=torch.float64)
    torch.testing.assert_close(fresh.norm(dim=-1), ones)
    torch.testing.assert_close(state["memory"].norm(dim=-1), ones)
    # what nothing renews turns towards v_i / |v_i|, and does not turn away again
    v = torch.randn(S, D, dtype=torch.float64)
    m, ends, before = state["memory"], F.normalize(v, dim=-1), -torch.ones(B, S, dtype=torch.float64)
    for _ in range(60):
        m = biased_normalisation(m, v)
        near = (m * ends).sum(-1)
        assert bool((near >= before - 1e-12).all())
        before = near
    torch.testing.assert_close(m, ends.expand_as(m), rtol=1e-6, atol=1e-6)


def test_a_longer_forgetting_vector_forgets_faster() -> None:
    m = F.normalize(torch.randn(1, S, D, dtype=torch.float64), dim=-1)
    v = torch.randn(S, D, dtype=torch.float64)
    kept = [(biased_normalisation(m, c * v) * m).sum(-1) for c in (0.0, 0.1, 1.0, 10.0)]
    torch.testing.assert_close(kept[0], torch.ones_like(kept[0]))
    assert all(bool((a > b).all()) for a, b in itertools.pairwise(kept))


def test_a_low_temperature_makes_a_slot_choose() -> None:
    x, m = tokens(9), F.normalize(tokens(S, seed=2), dim=-1)
    rows = []
    for temperature in (1.0, 1e-4):
        write = build(temperature=temperature).write
        assert isinstance(write, BiasedWrite)
        # without the forgetting vectors the written slot is the mixture itself, but for its length
        nn.init.zeros_(write.v)
        rows.append(write(m, x, None))
    heads = write.W_V(x).unflatten(-1, (2, -1))
    written = rows[1].unflatten(-1, (2, -1))  # every head of a slot is one token's value, or the slot's own, scaled
    candidates = torch.cat([heads[:, None].expand(-1, S, -1, -1, -1), m.unflatten(-1, (2, -1))[:, :, None]], dim=2)
    near = F.cosine_similarity(written[:, :, None], candidates, dim=-1).amax(2)
    torch.testing.assert_close(near, torch.ones_like(near))
    assert not torch.allclose(*rows)


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("write", WRITES)
def test_a_segment_reads_only_what_earlier_segments_wrote(mode: str, write: str) -> None:
    """Reading precedes writing: a segment's own tokens reach its outputs through self-attention alone."""
    backbone, x = build(mode, write=write), tokens(12).requires_grad_()
    first, second = list(drive(backbone, x, None, None, SegmentPlan(6)))
    (gradient,) = torch.autograd.grad((first.hidden * tokens(6)).sum(), x, retain_graph=True)
    assert not gradient[:, 6:].any()
    (gradient,) = torch.autograd.grad((second.hidden * tokens(6)).sum(), x, retain_graph=True)
    assert gradient[:, :6].any(dim=(1, 2)).all()
    (early,) = torch.autograd.grad((second.hidden[:, 2] * tokens(6)[:, 2]).sum(), x)
    assert bool(early[:, 9:].any()) == (mode == "bidirectional")
    assert early[:, :6].any()


@pytest.mark.parametrize("config", [{"positions": "t5", "write": "gru"}, {"positions": "port"}, {}])
def test_steps_equal_segments(config: dict[str, Any]) -> None:
    backbone = build("causal", **config)
    backbone.segment_len = 4
    assert_steps_equal_segments(backbone)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("T", [1, 2, 300])
def test_relative_bias_by_pairs(T: int, two_sided: bool) -> None:
    """Against T5's own buckets in transformers, looked up pair by pair."""
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    table = torch.randn(32, 2, dtype=torch.float64)
    lag = torch.arange(T) - torch.arange(T)[:, None]
    bucket = modeling.T5Attention._relative_position_bucket(lag, two_sided, 32, 128)
    expected = table[bucket].permute(2, 0, 1)
    torch.testing.assert_close(relative_bias(table, T, two_sided=two_sided), expected, rtol=0, atol=0)


def test_self_attention_under_autocast_has_a_wide_softmax() -> None:
    backbone = build(positions="t5", n_layers=1).float()
    (layer,) = backbone.layers
    h, memory = torch.randn(1, 7, D) * 4, torch.zeros(1, S, D)
    bias = torch.zeros(1, 2, 7, 7).masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), -torch.inf)
    wide = layer(h, memory, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = layer(h, memory, bias)
    assert (narrow.float() - wide).norm() / wide.norm() < 0.05


def test_the_ports_positions_are_blind_to_the_right() -> None:
    """positions=port cannot tell a reversal of what stands on the right of the first token; t5 can."""
    x = tokens(6)
    turned = torch.cat([x[:, :1], x[:, 1:].flip(1)], dim=1)
    for positions, same in (("port", True), ("t5", False)):
        backbone = build(n_layers=1, positions=positions)
        assert torch.allclose(backbone(x).hidden[:, 0], backbone(turned).hidden[:, 0]) == same


@pytest.mark.parametrize("mode", MODES)
def test_absolute_positions_are_counted_over_real_tokens_and_from_zero_in_every_segment(mode: str) -> None:
    backbone, x = build(mode, positions="absolute"), tokens(8)
    mask = torch.arange(8) >= torch.tensor([0, 3, 7])[:, None]  # pads first
    out = backbone(x, mask=mask)
    for row, start in enumerate((0, 3, 7)):
        alone = backbone(x[row : row + 1, start:])
        torch.testing.assert_close(out.hidden[row, start:], alone.hidden[0], rtol=1e-12, atol=1e-12)
    one, other = (backbone(y).hidden for y in (x, x.flip(1)))
    assert not torch.allclose(one, other.flip(1))  # order counts
    assert not any("table" in name for name, _ in backbone.named_parameters())


# -- pads, states, shapes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("write", WRITES)
def test_nothing_of_a_pad_is_seen(mode: str, write: str) -> None:
    backbone, x = build(mode, write=write), tokens(8)
    mask = torch.arange(8) < torch.tensor([8, 3, 0])[:, None]
    earlier = backbone(tokens(5, seed=4)).state
    out = backbone(x.masked_fill(~mask[..., None], torch.nan), mask=mask, state=earlier)
    for row, n in ((0, 8), (1, 3)):
        alone = backbone(x[row : row + 1, :n], state=select_rows(earlier, torch.tensor([row])))
        torch.testing.assert_close(out.hidden[row, :n], alone.hidden[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(out.state["memory"][row], alone.state["memory"][0], rtol=1e-12, atol=1e-12)
    assert torch.equal(out.state["memory"][2], earlier["memory"][2])
    assert out.hidden.isfinite().all()


def test_what_another_architecture_left_is_refused() -> None:
    backbone, x = build(), tokens(4)
    for state, message in (
        ({"memory": torch.zeros(2, S, D)}, "batch size 2 given with an input of batch size 3"),
        ({"memory": torch.zeros(B, S + 1, D)}, r"\(3, 6, 8\).*\(3, 5, 8\)"),
        ([torch.zeros(B, S, D)], "another architecture"),
        ({"keys": torch.zeros(B, S, D)}, "another architecture"),
        ({"memory": [torch.zeros(B, S, D)], "valid": torch.ones(B, S)}, "another architecture"),
    ):
        with pytest.raises(ValueError, match=message):
            backbone(x, state=state)


@pytest.mark.parametrize(
    ("config", "dims", "key"),
    [
        ({"n_heads": 3}, {}, "n_heads"),
        ({"n_slots": 0}, {}, "n_slots"),
        ({"write": "lstm"}, {}, "write"),
        ({"positions": "rope"}, {}, "positions"),
        ({"temperature": 0.0}, {}, "temperature"),
        ({"n_updates": 2}, {}, "n_updates"),
        ({"n_decoder_layers": 2}, {}, "n_decoder_layers"),
        ({"dropout": 1.0}, {}, "dropout"),
        ({"d_ff": 0}, {}, "d_ff"),
    ],
)
def test_impossible_configurations_are_named(config: dict[str, Any], dims: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(**config, **dims)
    assert error.value.key == f"arch.{key}"


# -- the encoder-decoder of the paper --------------------------------------------------------------------------------


def test_decoder_is_causal_and_reads_the_memory_through_the_encoder() -> None:
    backbone = build("seq2seq", n_decoder_layers=3)
    assert backbone.decoder is not None
    assert len(backbone.decoder) == 3
    x, y = tokens(12).requires_grad_(), tokens(7, seed=2).requires_grad_()
    _, last = list(drive(backbone, x, None, None, SegmentPlan(6)))
    hidden = backbone.decode(y, memory=last.hidden).hidden
    to_x, to_y = torch.autograd.grad((hidden[:, 3] * tokens(7)[:, 3]).sum(), (x, y))
    assert not to_y[:, 4:].any()
    assert to_y[:, :4].any()
    assert to_x[:, :6].any()  # what the encoder read of the segment before


def test_decoder_does_not_see_pads_of_the_source() -> None:
    backbone = build("seq2seq")
    x, y = tokens(6), tokens(4, seed=2)
    mask = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    encoded = backbone(x, mask=mask).hidden.masked_fill(~mask[..., None], torch.nan)
    hidden = backbone.decode(y, memory=encoded, memory_mask=mask).hidden
    alone = backbone.decode(y[1:2], memory=encoded[1:2, :2]).hidden
    torch.testing.assert_close(hidden[1:2], alone, rtol=1e-12, atol=1e-12)


def test_decoder_refuses_what_it_cannot_use() -> None:
    with pytest.raises(TypeError, match="seq2seq"):
        build().decode(tokens(3), memory=tokens(4))
    backbone = build("seq2seq")
    with pytest.raises(ValueError, match="memory of batch size 2 given with an input of batch size 3"):
        backbone.decode(tokens(3), memory=tokens(4, batch=2))
    with pytest.raises(ValueError, match="no state"):
        backbone.decode(tokens(3), memory=tokens(4), state={"memory": torch.zeros(B, S, D)})


# -- whole -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITES)
def test_the_memory_learns_to_carry_a_symbol(write: str) -> None:
    """The label stands in the first of three segments, the answer is read off the last: only the slots connect them."""
    torch.manual_seed(0)
    dims = ModelDims(d_model=16, n_layers=1, mode="bidirectional", max_len=4)
    backbone = MemformerBackbone(MemformerConfig(n_heads=2, n_slots=4, write=write), dims)
    embedding, head = nn.Embedding(8, 16), nn.Linear(16, 4)
    parameters = [p for m in (backbone, embedding, head) for p in m.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    correct = 0.0
    for _ in range(250):
        ids = torch.randint(4, 8, (64, 12), generator=generator)
        label = torch.randint(0, 4, (64,), generator=generator)
        ids[torch.arange(64), torch.randint(0, 4, (64,), generator=generator)] = label
        *_, last = drive(backbone, embedding(ids), None, None, SegmentPlan(4, activation_checkpointing="checkpoint"))
        logits = head(last.hidden.mean(1))
        correct = (logits.argmax(-1) == label).double().mean().item()
        if correct > 0.9:
            break
        optimiser.zero_grad()
        F.cross_entropy(logits, label).backward()
        optimiser.step()
    assert correct > 0.9, f"{correct:.0%} right; guessing is 25%"


class TestTheGRUWriteConformsToo(ArchitectureSuite):
    architecture = "memformer"
    slow = False  # what traces it is that of the default
    overrides: ClassVar[dict[str, Any]] = {"write": "gru", "n_updates": 2, "positions": "port"}
