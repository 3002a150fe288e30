"""RetNet as a plugin: forms agree, the equation written out, two-sided decay, pads, states, initial values."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import ConfigError, ModelDims, registry
from zoo.ops.backend import forms_that_ran, use_backend
from zoo.ops.retention import retention
from zoo.spec.presets import load_presets
from zoo_retnet.backbone import MultiScaleRetention, RetNetBackbone
from zoo_retnet.config import RetNetConfig
from zoo_retnet.op import decay_sums, log_decays, rotation_speeds

PRESETS, REPORTED = load_presets("zoo_retnet")

FORMS = ("chunkwise", "parallel", "recurrent")


def build(mode: str = "causal", d_model: int = 16, dtype: torch.dtype = torch.float64, **config: Any) -> RetNetBackbone:
    torch.manual_seed(0)
    dims = ModelDims(d_model=d_model, n_layers=2, mode=mode, max_len=512)
    settings = RetNetConfig(**{"n_heads": 2, "chunk_size": 8, **config})
    settings.check(dims)
    return RetNetBackbone(settings, dims).to(dtype)


def sequence(batch: int = 3, seq_len: int = 29, d_model: int = 16) -> Tensor:
    return torch.randn(batch, seq_len, d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


# -- the op ------------------------------------------------------------------------------------------------------------


def qkv(L: int, *, B: int = 2, H: int = 3, k: int = 4, v: int = 5) -> list[Tensor]:
    g = torch.Generator().manual_seed(L)
    shapes = [(B, H, L, k), (B, H, L, k), (B, H, L, v), (B, H, k, v)]
    return [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]


@pytest.mark.parametrize("L", [1, 7, 8, 9, 40])
@pytest.mark.parametrize(("two_sided", "carried"), [(False, False), (False, True), (True, False)])
def test_forms_of_the_op_agree_with_their_gradients(L: int, two_sided: bool, carried: bool) -> None:
    q, k, v, state = qkv(L)
    leaves = [q, k, v, state] if carried else [q, k, v]
    log_gamma, results = log_decays(3), {}
    weight = torch.randn(2, 3, L, 5, dtype=torch.float64)
    for form in FORMS[: 2 if two_sided else 3]:
        given = state if carried else None
        o = retention(q, k, v, log_gamma, given, form=form, chunk=8, two_sided=two_sided)
        results[form] = [o, *torch.autograd.grad((o * weight).sum(), leaves)]
    for form in results:
        assert_close(results[form], results["parallel"])


def test_the_op_refuses_what_does_not_fit() -> None:
    q, k, v, state = (x.detach() for x in qkv(5))
    for arguments, message in (
        ((q, k[:, :, :4], v, log_decays(3)), "k has shape .*, expected"),
        ((q, k, v, log_decays(2)), "log_gamma has shape"),
        ((q, k, v, log_decays(3), state[:1]), "state has shape"),
        ((q[:, :, :0], k, v, log_decays(3)), "seq_len >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            retention(*arguments)
    with pytest.raises(ValueError, match="carries no state"):
        retention(q, k, v, log_decays(3), state, two_sided=True)
    with pytest.raises(ValueError, match="expected one of"):
        retention(q, k, v, log_decays(3), form="scan")


def test_gradients_match_differences() -> None:
    q, k, v, state = qkv(7, B=1, H=2, k=2, v=2)
    gamma = log_decays(2)
    assert torch.autograd.gradcheck(lambda *x: retention(*x[:3], gamma, x[3], chunk=3), (q, k, v, state))
    assert torch.autograd.gradcheck(lambda *x: retention(*x, gamma, chunk=3, two_sided=True), (q, k, v))


def test_decays_and_speeds_are_the_papers() -> None:
    gamma = log_decays(6).exp()
    torch.testing.assert_close(gamma[:3], torch.tensor([31 / 32, 63 / 64, 127 / 128], dtype=torch.float64))
    assert [round(-math.log(2) / float(x)) for x in log_decays(5)] == [22, 44, 88, 177, 355]
    assert rotation_speeds(2).tolist() == [1.0]
    torch.testing.assert_close(rotation_speeds(8), 10000.0 ** -(torch.arange(4, dtype=torch.float64) / 3))


def test_decay_sums() -> None:
    log_gamma = log_decays(3)
    gamma = log_gamma.exp()[:, None]
    lag = torch.arange(9)[:, None] - torch.arange(9)
    causal = (gamma[..., None] ** lag.abs() * (lag >= 0)).sum(-1)
    assert_close([decay_sums(log_gamma, 9)[0]], [causal])
    seen = torch.tensor([4, 0])
    assert_close([decay_sums(log_gamma, 5, seen=seen)], [torch.stack([causal[:, 4:], causal[:, :5]])])
    lengths = torch.tensor([9, 6])
    both = decay_sums(log_gamma, 9, lengths=lengths)
    weights = gamma[..., None] ** lag.abs()
    assert_close([both[0], both[1, :, :6]], [weights.sum(-1), weights[:, :6, :6].sum(-1)])


# -- the layer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
@pytest.mark.parametrize("form", ["chunkwise", "parallel"])
def test_the_layer_is_its_equation(mode: str, form: str) -> None:
    """Sums written out token by token, with rotations as complex numbers; the current token counts once."""
    mixer: MultiScaleRetention = build(mode, form=form).stack.blocks[1].mixer
    x, L, H = sequence(), 29, 2
    q, k, v, g = (F.linear(x, p.weight) for p in (mixer.q_proj, mixer.k_proj, mixer.v_proj, mixer.g_proj))
    heads = []
    for h in range(H):
        gamma, theta = 1 - 2.0 ** (-5 - h), rotation_speeds(8)
        qh, kh, vh = (t.chunk(H, -1)[h] for t in (q, k, v))
        qc = torch.view_as_complex(qh.reshape(3, L, 4, 2).contiguous())
        kc = torch.view_as_complex(kh.reshape(3, L, 4, 2).contiguous())
        outs = []
        for n in range(L):
            o, s = torch.zeros_like(vh[:, 0]), 0.0
            for m in range(n + 1 if mode == "causal" else L):
                score = (qc[:, n] * kc[:, m].conj() * torch.exp(1j * (n - m) * theta)).sum(-1).real / math.sqrt(8)
                o, s = o + gamma ** abs(n - m) * score[:, None] * vh[:, m], s + gamma ** abs(n - m)
            o = o / math.sqrt(s)
            outs.append(o / torch.sqrt(o.square().mean(-1, keepdim=True) + 1e-6))
        heads.append(torch.stack(outs, 1))
    assert_close([mixer(x)[0]], [F.linear(F.silu(g) * torch.cat(heads, -1), mixer.out_proj.weight)])


@pytest.mark.parametrize("config", [{}, {"prenorm": False, "deepnorm": True}, {"n_heads": 8}, {"n_heads": 1}], ids=str)
def test_forms_steps_and_pieces_agree(config: dict[str, Any]) -> None:
    x, models = sequence(), {form: build(form=form, **config) for form in FORMS}
    with torch.no_grad():
        whole = models["parallel"](x)
        expected = [whole.hidden, *(s["kv"] for s in whole.state)]
        for model in models.values():
            model.load_state_dict(models["parallel"].state_dict())
            assert_close([(out := model(x)).hidden, *(s["kv"] for s in out.state)], expected)
            state, ys = None, []
            for piece in x.split([1, 2, 17, 8, 1], 1):
                hidden, state, _ = model(piece, state=state)
                ys.append(hidden)
            assert_close([torch.cat(ys, 1), *(s["kv"] for s in state)], expected)
            assert [s["seen"].tolist() for s in state] == [[29] * 3] * 2
        state, ys = model.init_state(3, device="cpu", dtype=x.dtype), []
        for x_t in x.unbind(1):
            y_t, state = model.step(x_t, state)
            ys.append(y_t)
        assert_close([torch.stack(ys, 1), *(s["kv"] for s in state)], expected)


def test_gradients_flow_through_the_state() -> None:
    x, weight = sequence().requires_grad_(), torch.randn(3, 29, 16, dtype=torch.float64)
    for form in FORMS:
        model = build(form=form)
        over = [x, *model.parameters()]
        whole = torch.autograd.grad((model(x).hidden * weight).sum(), over)
        first = model(x[:, :11])
        second = model(x[:, 11:], state=first.state)
        loss = (torch.cat([first.hidden, second.hidden], 1) * weight).sum()
        assert_close(list(torch.autograd.grad(loss, over)), list(whole))
    assert all(g.abs().max() > 1e-6 for g in whole)


def test_far_positions_are_exact() -> None:
    """A state from 3 million tokens ago is an integer away, not a sine of a large float32 angle."""
    model, x = build(dtype=torch.float32), sequence(1, 6).float()
    late = [{"kv": s["kv"], "seen": torch.tensor([3_000_000])} for s in model(x).state]
    later = [{"kv": s["kv"], "seen": torch.tensor([4_000_000])} for s in model(x).state]
    torch.testing.assert_close(model(x, state=late).hidden, model(x, state=later).hidden)


# -- pads --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "form"), [*(("causal", form) for form in FORMS), *(("bidirectional", form) for form in FORMS[:2])]
)
def test_right_pads_change_nothing(mode: str, form: str) -> None:
    model, x, lengths = build(mode, form=form), sequence(4), [29, 12, 1, 0]
    mask = torch.arange(29) < torch.tensor(lengths)[:, None]
    noisy = torch.where(mask[..., None], x, 100 * torch.randn_like(x))
    start = model(sequence(4, 5)).state if mode == "causal" else None
    for state in [None] if start is None else [None, start]:
        out = model(noisy, mask=mask, state=state)
        assert out.hidden.isfinite().all()
        for b, n in enumerate(lengths):
            row = None if state is None else [{k: v[b : b + 1] for k, v in s.items()} for s in state]
            if n:
                alone = model(x[b : b + 1, :n], state=row)
                assert_close([out.hidden[b : b + 1, :n]], [alone.hidden])
            if mode == "causal":
                after = alone.state if n else row or model.init_state(1, device="cpu", dtype=x.dtype)
                assert_close([s["kv"][b : b + 1] for s in out.state], [s["kv"] for s in after])
                assert [int(s["seen"][b]) for s in out.state] == [int(s["seen"]) for s in after]


def test_a_long_padded_batch_stays_finite() -> None:
    """10,000 pads behind a token: gamma^10000 vanishes, and nothing may be divided by it."""
    model, x = build(dtype=torch.float32, chunk_size=64), sequence(2, 10_000).float()
    mask = torch.arange(10_000) < torch.tensor([10_000, 3])[:, None]
    out = model(x, mask=mask)
    torch.testing.assert_close(out.hidden[1:, :3], model(x[1:, :3]).hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.state[0]["kv"][1:], model(x[1:, :3]).state[0]["kv"], rtol=1e-4, atol=1e-5)


# -- denominators, precision, backends ---------------------------------------------------------------------------------


def test_published_denominators() -> None:
    """Three results that differ by about the norm's eps; a carried state only where they are defined on it."""

    def loud(**config: Any) -> RetNetBackbone:
        """Keys large enough that score sums exceed 1, below which the reference does not divide."""
        model = build(**config)
        with torch.no_grad():
            for block in model.stack.blocks:
                block.mixer.k_proj.weight *= 20
        return model

    outs = {form: loud(form=form, denominator="published")(sequence()) for form in FORMS}
    common = loud()(sequence()).hidden
    assert_close([outs["recurrent"].hidden], [common])
    for form in ("parallel", "chunkwise"):
        assert 1e-9 < (outs[form].hidden - common).abs().max() < 1e-2
        with pytest.raises(ValueError, match="use denominator=common or form=recurrent"):
            build(form=form, denominator="published")(sequence(), state=outs[form].state)
    build(form="recurrent", denominator="published")(sequence(), state=outs["recurrent"].state)


@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_float32_agrees_with_float64(mode: str) -> None:
    double, single = build(mode, n_heads=4), build(mode, n_heads=4, dtype=torch.float32)
    x = sequence(2, 2000)
    a, b = single(x.float()).hidden, double(x).hidden
    assert a.dtype == torch.float32
    # a row whose sums nearly cancel is magnified by the group norm, hence the mean beside the maximum
    assert (a - b).abs().mean() < 1e-6 * b.abs().mean() * 10
    assert (a - b).abs().max() < 1e-2 * b.abs().max()


def test_autocast_stays_out_of_the_sums() -> None:
    mixer: MultiScaleRetention = build(dtype=torch.float32).stack.blocks[0].mixer
    q, k, v = (torch.randn(2, 2, 40, d) for d in (8, 8, mixer.head_dim))
    o, state = mixer.retain(q, k, v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, low_state = mixer.retain(q, k, v)
    assert torch.equal(o, low)
    assert torch.equal(state["kv"], low_state["kv"])


def test_the_backend_decides_what_chunkwise_means() -> None:
    model, x = build("bidirectional"), sequence()
    forms_that_ran(reset=True)
    fast = model(x).hidden
    assert forms_that_ran(reset=True) == {"retention": "torch"}
    with use_backend("reference"):
        assert_close([model(x).hidden], [fast])
    assert forms_that_ran(reset=True) == {"retention": "reference"}
    with use_backend("torch"), pytest.raises(ConfigError, match="not available for retention"):
        build(form="parallel")(x)


def test_nothing_of_size_l_squared_is_held() -> None:
    model, x = build("bidirectional", chunk_size=16), sequence(1, 1024).requires_grad_()
    largest = 0

    def pack(t: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(x).hidden.sum().backward()
    assert largest <= 1024 * 32


# -- initial values, configuration, metadata ---------------------------------------------------------------------------


def test_initial_values() -> None:
    def bound(linear: torch.nn.Linear, gain: float) -> float:
        return gain * math.sqrt(6 / sum(linear.weight.shape))

    plain, deep = build(d_model=64, dtype=torch.float32), build(d_model=64, prenorm=False, deepnorm=True)
    for model, beta in ((plain, 1.0), (deep, 16**-0.25)):
        for block in model.stack.blocks:
            mixer = block.mixer
            for linear, gain in (
                (mixer.q_proj, 2**-2.5),
                (mixer.k_proj, 2**-2.5),
                (mixer.g_proj, 2**-2.5),
                (mixer.v_proj, 2**-2.5 * beta),
                (mixer.out_proj, 0.5 * beta),
            ):
                top = float(linear.weight.detach().abs().max())
                assert 0.97 * bound(linear, gain) < top <= 1.0001 * bound(linear, gain)
            assert float(block.mlp.fc1.weight.detach().abs().max()) == pytest.approx(beta / 8, rel=0.03)
            assert float(block.mlp.gate.weight.detach().abs().max()) == pytest.approx(1 / 8, rel=0.03)
            assert block.residual_scale == (1.0 if model is plain else pytest.approx(4**0.25))
    assert deep.stack.final_norm is None


def test_a_layer_has_twelve_d_squared_weights() -> None:
    model = build(d_model=192, n_heads=4)
    assert RetNetConfig(n_heads=4).resolved_value_dim(768) == RetNetConfig().resolved_ffn_dim(768) == 1280
    assert sum(p.numel() for p in model.stack.blocks[0].parameters() if p.ndim == 2) == 12 * 192**2


@pytest.mark.parametrize(
    ("key", "config", "mode"),
    [
        ("n_heads", {"n_heads": 3}, "causal"),
        ("n_heads", {"n_heads": 16}, "causal"),
        ("n_heads", {"n_heads": 0}, "causal"),
        ("value_dim", {"value_dim": 30}, "causal"),
        ("form", {"form": "scan"}, "causal"),
        ("form", {"form": "recurrent"}, "bidirectional"),
        ("denominator", {"denominator": "published"}, "bidirectional"),
        ("denominator", {"denominator": "none"}, "causal"),
        ("deepnorm", {"deepnorm": True}, "causal"),
        ("gate", {"gate": "tanh"}, "causal"),
        ("activation", {"activation": "tanh"}, "causal"),
        ("chunk_size", {"chunk_size": 0}, "causal"),
        ("norm_eps", {"norm_eps": 0.0}, "causal"),
        ("dropout", {"dropout": 1.0}, "causal"),
    ],
)
def test_refuses(key: str, config: dict[str, Any], mode: str) -> None:
    dims = ModelDims(d_model=16, n_layers=1, mode=mode, max_len=16)
    with pytest.raises(ConfigError) as error:
        registry().architecture("retnet").record.check(RetNetConfig(**config), dims)
    assert error.value.key == f"arch.{key}"


def test_foreign_states_are_refused() -> None:
    model, x = build(), sequence()
    with pytest.raises(ValueError, match="batch size 2 given with an input of batch size 3"):
        model(x, state=model(sequence(2)).state)
    with pytest.raises(ValueError, match="carries none in this mode"):
        build("bidirectional")(x, state=model(x).state)
    with pytest.raises(ValueError, match="another architecture or configuration"):
        model(x, state=build(n_heads=4)(x).state)
    with pytest.raises(TypeError, match="no step form"):
        build("bidirectional").step(x[:, 0], None)


def test_presets_are_ours_and_nothing_is_reported() -> None:
    assert REPORTED == ()
    record = registry().architecture("retnet").record
    for (task, protocol), preset in PRESETS.items():
        assert all(preset.sources[key].startswith("ours") for key in preset.values), (task, protocol)
        own = {k.removeprefix("arch."): v for k, v in preset.values.items() if k.startswith("arch.")}
        dims = ModelDims(
            d_model=preset.values.get("model.d_model", 32), n_layers=2, mode="bidirectional", max_len=16384
        )
        record.check(RetNetConfig(**own), dims)
    # the longest half-life reaches across Path-X
    heads = PRESETS["pathx", "paper"].values["arch.n_heads"]
    assert -math.log(2) / float(log_decays(heads)[-1]) > 16384


def test_metadata_needs_no_torch() -> None:
    use = "[a.load_presets() for a in zoo_retnet.zoo_architectures()]; print('torch' in sys.modules)"
    code = f"import sys, zoo_retnet, zoo_retnet.config; {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
