"""H3 as a plugin: its forms agree, heads, hybrid attention, two-sided sums, pads, states, options, configuration."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.resources import files
from types import MappingProxyType

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zoo import ConfigError, ModelDims, registry
from zoo.nn import parameters_with_options
from zoo.ops.backend import forms_that_ran, use_backend
from zoo.spec.presets import load_presets
from zoo.testing import ArchitectureSuite
from zoo_h3.backbone import AttentionMixer, H3Backbone, H3Mixer
from zoo_h3.config import H3Config
from zoo_h3.ssm import Shift, ShiftSystem

PRESETS, REPORTED = load_presets("zoo_h3")

FORMS = [
    {},
    {"head_dim": 4},
    {"head_dim": 2, "d_state": 32, "disc": "zoh", "norm": "rms"},
    {"attn_layers": [1], "attn_heads": 2},
]


def build(mode: str = "causal", d_model: int = 8, dtype: torch.dtype = torch.float64, **config: object) -> H3Backbone:
    torch.manual_seed(0)
    dims = ModelDims(d_model=d_model, n_layers=2, mode=mode, max_len=512)
    # a larger start than the default's 0.02, so that what the mixers do is seen in the outputs; B off its unit vector
    model = H3Backbone(H3Config(**{"d_state": 8, "init_std": 0.5, **config}), dims)
    for module in model.modules():
        if isinstance(module, Shift):
            torch.nn.init.normal_(module.B)
    return model.to(dtype)


def sequence(batch: int = 3, seq_len: int = 13, d_model: int = 8) -> Tensor:
    return torch.randn(batch, seq_len, d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_close(ours: object, theirs: object) -> None:
    a, spec = pytree.tree_flatten(ours)
    b, other = pytree.tree_flatten(theirs)
    assert spec == other
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


def row(state: object, b: int) -> object:
    return pytree.tree_map(lambda leaf: leaf[b : b + 1], state)


class TestHeadsConformance(ArchitectureSuite):
    """The defaults (head_dim 1) are among the architectures that the suite runs for; this is with heads."""

    architecture = "h3"
    slow = False  # what traces it is that of the default
    overrides = MappingProxyType({"head_dim": 2, "d_state": 8})


# -- forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", FORMS, ids=str)
def test_steps_and_pieces_equal_the_whole(config: dict[str, object]) -> None:
    model, x = build(**config), sequence(seq_len=101)
    with torch.no_grad():
        whole = model(x)
        state, ys = model.init_state(3, device="cpu", dtype=x.dtype), []
        for x_t in x.unbind(1):
            y_t, state = model.step(x_t, state)
            ys.append(y_t)
        assert_close([torch.stack(ys, 1), state], [whole.hidden, whole.state])
        state, ys = None, []
        for piece in x.split([1, 2, 90, 7, 1], 1):
            hidden, state, _ = model(piece, state=state)
            ys.append(hidden)
        assert_close([torch.cat(ys, 1), state], [whole.hidden, whole.state])


@pytest.mark.parametrize("head_dim", [1, 2, 4])
@pytest.mark.parametrize("seq_len", [1, 5, 13])
def test_causal_layer_is_its_recurrence(head_dim: int, seq_len: int) -> None:
    """Head by head and token by token, in complex numbers: X_t = a X_{t-1} + b kk v^T."""
    mixer: H3Mixer = build(head_dim=head_dim).stack.blocks[0].mixer
    u, d = sequence(2, seq_len), head_dim
    H = 8 // d
    q, k, v = mixer.q_proj(u), mixer.k_proj(u), mixer.v_proj(u)
    B_s, C_s, D_s = mixer.shift.B, mixer.shift.C[0], mixer.shift.D
    p = mixer.diag
    A, dt = torch.complex(-p.A_real.exp(), p.A_imag), p.log_dt.exp()[:, None]
    a = (1 + dt * A / 2) / (1 - dt * A / 2)
    b = dt / (1 - dt * A / 2) * torch.view_as_complex(p.B)
    c = torch.view_as_complex(p.C[0])
    o = torch.zeros(2, seq_len, 8, dtype=u.dtype)
    for row_ in range(2):
        s = torch.zeros(8, 8, dtype=u.dtype)
        X = torch.zeros(H, d, d, 4, dtype=torch.complex128)
        for t in range(seq_len):
            s = torch.cat([torch.zeros(8, 1, dtype=u.dtype), s[:, :-1]], 1) + B_s * k[row_, t][:, None]
            kk = (C_s * s).sum(1) + D_s * k[row_, t]
            for h in range(H):
                KV = torch.outer(kk[h * d : (h + 1) * d], v[row_, t, h * d : (h + 1) * d])
                X[h] = a[h] * X[h] + b[h] * KV[..., None]
                S = 2 * (c[h] * X[h]).real.sum(-1) + p.D[h] * KV
                for j in range(d):
                    o[row_, t, j * H + h] = (q[row_, t, h * d : (h + 1) * d] * S[:, j]).sum()
    assert_close(mixer(u)[0], mixer.output_linear(o))


@pytest.mark.parametrize("head_dim", [1, 2])
@pytest.mark.parametrize("seq_len", [1, 2, 13])
def test_bidirectional_layer_is_two_sums(head_dim: int, seq_len: int) -> None:
    """Both kernels meet the current token."""
    mixer: H3Mixer = build("bidirectional", head_dim=head_dim).stack.blocks[0].mixer
    u, H = sequence(2, seq_len), 8 // head_dim

    def two_sided(K: Tensor, D: Tensor, x: Tensor) -> Tensor:
        y = D[:, None] * x
        for t in range(seq_len):
            for s in range(seq_len):
                for kernel, lag in ((K[0], t - s), (K[1], s - t)):
                    if 0 <= lag < K.shape[-1]:
                        y = y + torch.zeros_like(y).index_fill(-1, torch.tensor([t]), 1.0) * (
                            kernel[:, lag] * x[..., s]
                        ).unsqueeze(-1)
        return y

    q, k, v = (f(u).transpose(1, 2) for f in (mixer.q_proj, mixer.k_proj, mixer.v_proj))
    kk = two_sided(mixer.shift.system().kernel(seq_len, u.dtype), mixer.shift.D, k)
    kd = mixer.diag.system().kernel(seq_len, u.dtype)
    q, kk, v = (z.reshape(2, H, head_dim, seq_len) for z in (q, kk, v))
    o = torch.zeros(2, head_dim, H, seq_len, dtype=u.dtype)
    for i in range(head_dim):
        for j in range(head_dim):
            o[:, j] += q[:, :, i] * two_sided(kd, mixer.diag.D, kk[:, :, i] * v[:, :, j])
    y, state = mixer(u)
    assert state is None
    assert_close(y, mixer.output_linear(o.reshape(2, 8, seq_len).transpose(1, 2)))


def test_gradients_flow_through_the_state() -> None:
    for config in FORMS:
        model, x = build(**config), sequence().requires_grad_()
        weight = sequence(3, 13) - 0.5
        # added keys' biases change no softmax
        over = [x, *(p for name, p in model.named_parameters() if "qkv.bias" not in name)]
        whole = torch.autograd.grad((model(x).hidden * weight).sum(), over)
        assert all(g.abs().max() > 1e-9 for g in whole)
        first = model(x[:, :5])
        second = model(x[:, 5:], state=first.state)
        loss = (torch.cat([first.hidden, second.hidden], 1) * weight).sum()
        assert_close(list(torch.autograd.grad(loss, over)), list(whole))
        state, loss = model.init_state(3, device="cpu", dtype=x.dtype), torch.zeros(())
        for t in range(13):
            y_t, state = model.step(x[:, t], state)
            loss = loss + (y_t * weight[:, t]).sum()
        assert_close(list(torch.autograd.grad(loss, over)), list(whole))


def test_reference_forms_agree() -> None:
    for mode in ("causal", "bidirectional"):
        model, x = build(mode), sequence(seq_len=65)
        fast = model(x).hidden
        forms_that_ran(reset=True)
        with use_backend("reference"):
            assert_close(model(x).hidden, fast)
        assert set(forms_that_ran().values()) == {"reference"}


def test_shift_system_against_its_matrices() -> None:
    """A the shift matrix: kernel C A^l B, states and responses by powers, N larger and smaller than the sequence."""
    g = torch.Generator().manual_seed(3)
    for N, L in ((6, 11), (6, 4), (6, 1), (1, 3)):
        B, C = torch.randn(2, N, generator=g).double(), torch.randn(1, 2, N, generator=g).double()
        A = torch.diag(torch.ones(N - 1, dtype=torch.float64), -1)
        system, x, s0 = ShiftSystem(B, C), torch.randn(3, 2, L, generator=g).double(), torch.randn(3, 2, N).double()
        K = system.kernel(L, torch.float64)
        for lag in range(K.shape[-1]):
            assert_close(K[0, :, lag], torch.einsum("gm,mn,gn->g", C[0], torch.linalg.matrix_power(A, lag), B))
        lengths = torch.tensor([L, 1, 0])
        s, ys, stopped = s0, [], {}
        for t in range(L + 1):
            stopped |= {b: s[b] for b in range(3) if lengths[b] == t}
            if t < L:
                s = s @ A.T + B * x[..., t : t + 1]
                ys.append(torch.einsum("gn,bgn->bg", C[0], s))
        assert_close(system.final_state(x, None, s0), s)
        assert_close(system.final_state(x, lengths, s0), torch.stack([stopped[b] for b in range(3)]))
        zero = ShiftSystem(B, C).response(torch.zeros_like(s0), L)
        y = system.response(s0, L) + sum_of(K[0], x)
        assert zero.abs().max() == 0
        assert_close(y, torch.stack(ys, -1))


def sum_of(k: Tensor, x: Tensor) -> Tensor:
    """(k * x)_t by its sum."""
    L = x.shape[-1]
    y = torch.zeros_like(x)
    for t in range(L):
        for s in range(max(0, t - k.shape[-1] + 1), t + 1):
            y[..., t] += k[:, t - s] * x[..., s]
    return y


# -- pads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", FORMS, ids=str)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_right_pads_change_nothing(config: dict[str, object], mode: str) -> None:
    model, x = build(mode, **config), sequence(seq_len=40)
    lengths = [40, 33, 1]
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    noise = 100 * torch.randn_like(x)
    out = model(torch.where(mask[..., None], x, noise), mask=mask)
    more = sequence(seq_len=6) + 1
    for b, n in enumerate(lengths):
        alone = model(x[b : b + 1, :n])
        assert_close(out.hidden[b : b + 1, :n], alone.hidden)
        if mode == "causal":
            # a memory of attention keeps its pads, hidden; what follows must not see them
            ours = model(more, state=out.state)
            theirs = model(more[b : b + 1], state=alone.state)
            assert_close(ours.hidden[b : b + 1], theirs.hidden)
            if not config.get("attn_layers"):
                assert_close(row(out.state, b), alone.state)


@pytest.mark.parametrize("config", FORMS, ids=str)
def test_a_padded_state_continues_by_steps(config: dict[str, object]) -> None:
    """mask, then step: each row goes on from its own last real token, a row without any from where it was."""
    model, x, more = build(**config), sequence(), sequence(seq_len=4) + 1
    start = model(sequence(seq_len=6)).state
    mask = torch.arange(13) < torch.tensor([13, 6, 0])[:, None]
    state = model(x, mask=mask, state=start).state
    for t in range(4):
        y_t, state = model.step(more[:, t], state)
    for b, n in enumerate([13, 6, 0]):
        whole = model(torch.cat([x[b : b + 1, :n], more[b : b + 1]], 1), state=row(start, b))
        assert_close(y_t[b : b + 1], whole.hidden[:, -1])


def test_no_leak_from_the_future() -> None:
    for config in FORMS:
        model, x = build(**config), sequence(seq_len=40).requires_grad_()
        (g,) = torch.autograd.grad(model(x).hidden[0, 17, 0], x)
        assert g[0, 18:].abs().max() < 1e-12 * g[0, :18].abs().max()
        assert (g[1:] == 0).all()


# -- initial values, precision, optimiser options --------------------------------------------------------------------


def test_initial_values() -> None:
    torch.manual_seed(0)
    dims = ModelDims(d_model=256, n_layers=2, mode="bidirectional", max_len=64)
    model = H3Backbone(H3Config(attn_layers=[1], attn_heads=4), dims)
    mixer, attention = (block.mixer for block in model.stack.blocks)
    assert isinstance(attention, AttentionMixer)
    model.requires_grad_(False)
    assert (mixer.shift.B[:, 0] == 1).all()
    assert (mixer.shift.B[:, 1:] == 0).all()
    assert 0.99 / 8 < float(mixer.shift.C.abs().max()) <= 1 / 8
    assert_close(mixer.diag.A_real.exp(), torch.full((256, 32), 0.5))
    torch.testing.assert_close(mixer.diag.A_imag[3], math.pi * torch.arange(32))
    assert math.log(1e-3) <= float(mixer.diag.log_dt.min())
    assert float(mixer.diag.log_dt.max()) <= math.log(1e-1)
    assert abs(float(mixer.diag.C.var()) - 0.5) < 0.02
    small = {"mlp.linear2", "mixer.out"}
    for name, module in model.stack.blocks.named_modules():
        if isinstance(module, torch.nn.Linear):
            std = 0.01 if name.split(".", 1)[1] in small else 0.02
            assert abs(float(module.weight.std()) / std - 1) < 0.02, name
            assert (module.bias == 0).all()


@pytest.mark.parametrize("head_dim", [1, 2])
def test_float32_agrees_with_float64(head_dim: int) -> None:
    double = build(d_state=64, head_dim=head_dim, init_std=None)
    single = build(d_state=64, head_dim=head_dim, init_std=None, dtype=torch.float32)
    x = sequence(2, 2048)
    a, b = single(x.float()), double(x)
    assert a.hidden.dtype == torch.float32
    assert [leaf.dtype for leaf in a.state[0].values()] == [torch.float32, torch.complex64]
    assert [leaf.dtype for leaf in b.state[0].values()] == [torch.float64, torch.complex128]
    assert (a.hidden - b.hidden).abs().max() < 1e-4 * b.hidden.abs().max()


def test_autocast_stays_out_of_the_recurrence() -> None:
    mixer: H3Mixer = build(dtype=torch.float32).stack.blocks[0].mixer
    q, k, v = (sequence(seq_len=300)[:, i * 100 : (i + 1) * 100].bfloat16() for i in range(3))
    exact, state = mixer.mix(q.float(), k.float(), v.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, low = mixer.mix(q, k, v)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, exact.bfloat16())
    torch.testing.assert_close(low, state)


def test_optimiser_options() -> None:
    mixer = build(ssm_lr=0.002).stack.blocks[0].mixer
    own = {
        name: (m.lr, m.weight_decay)
        for name, _, m in parameters_with_options(mixer)
        if name.startswith(("shift", "diag"))
    }
    assert own == {
        "shift.B": (0.002, 0.0),
        "shift.C": (None, None),
        "shift.D": (None, None),
        "diag.A_real": (0.002, 0.0),
        "diag.A_imag": (0.002, 0.0),
        "diag.B": (0.002, 0.0),
        "diag.log_dt": (0.002, 0.0),
        "diag.C": (None, None),
        "diag.D": (None, None),
    }


# -- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "config", "words"),
    [
        ("d_state", {"d_state": 7}, "7"),
        ("head_dim", {"head_dim": 3}, "3 channels.*d_model=8"),
        ("d_ff", {"d_ff": -1}, "-1"),
        ("attn_layers", {"attn_layers": [2]}, r"\[2\].*0 to 1"),
        ("attn_layers", {"attn_layers": [0, 0]}, "different"),
        ("attn_heads", {"attn_layers": [0], "attn_heads": 3}, "3 heads.*d_model=8"),
        ("disc", {"disc": "euler"}, "euler"),
        ("dt_min", {"dt_min": 0.2}, "at most dt_max 0.1, got 0.2"),
        ("dropout", {"dropout": 1.0}, "1.0"),
        ("init_std", {"init_std": 0.0}, "0.0"),
        ("ssm_lr", {"ssm_lr": -1.0}, "-1.0"),
        ("norm", {"norm": "batch"}, "future"),
    ],
)
def test_refuses(key: str, config: dict[str, object], words: str) -> None:
    given = ModelDims(d_model=8, n_layers=2, mode="causal", max_len=16)
    with pytest.raises(ConfigError, match=words) as error:
        registry().architecture("h3").record.check(H3Config(**config), given)  # type: ignore[arg-type]
    assert error.value.key == f"arch.{key}"


def test_states_of_others_are_refused() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"2.*3"):
        model(sequence(), state=model(sequence(2)).state)
    with pytest.raises(ValueError, match="carries none in this mode"):
        build("bidirectional")(sequence(), state=model(sequence()).state)
    with pytest.raises(ValueError, match="another"):
        model(sequence(), state=build(head_dim=2)(sequence()).state)


def test_metadata_needs_no_torch() -> None:
    use = "[a.load_presets() for a in zoo_h3.zoo_architectures()]; print('torch' in sys.modules)"
    code = f"import sys, zoo_h3, zoo_h3.config; {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_presets_fit_the_configuration_and_say_that_they_are_ours() -> None:
    record = registry().architecture("h3").record
    tasks = {"listops", "text", "retrieval", "image", "pathfinder", "pathx"}
    assert {task for task, protocol in PRESETS if protocol == "paper"} == tasks
    for preset in PRESETS.values():
        own = {k.removeprefix("arch."): v for k, v in preset.values.items() if k.startswith("arch.")}
        config = H3Config(**own)
        dims = ModelDims(
            d_model=preset.values.get("model.d_model", 64), n_layers=6, mode="bidirectional", max_len=16384
        )
        record.check(config, dims)
        assert all(preset.sources[key].startswith("ours") for key in preset.values)
    assert REPORTED == ()
    assert "none published" in files("zoo_h3").joinpath("README.md").read_text()
