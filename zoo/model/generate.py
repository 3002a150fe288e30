"""Generation: one loop for every model that predicts the next token.

B batch, L tokens of a prompt, V vocab_size. What a token costs depends on the architecture: with `step`, one step from
the carried state (a recurrent state, a window, a key-value cache, a memory with the segment that is running); a decoder
over an encoded source, one call from its state; without either the whole text is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zoo.model.encoder import pack_inputs
from zoo.nn import sequence_lengths
from zoo.nn.backbone import Backbone, State
from zoo.nn.state import leaves, return_state
from zoo.spec.architecture import Capabilities
from zoo.spec.errors import ConfigError


class NextTokenModel(Protocol):
    """What `generate` needs of a model.

    objective       "causal_lm" or "seq2seq"; others predict no next token
    embed           tokens (B, T), mask (B, T), the position of the first token of each row (B,) -> (B, T, D)
    compute_logits  (…, D) -> (…, V)
    next_logits     tokens (B, T), mask (B, T) -> (B, V) after the last real token of each row
    """

    objective: str
    capabilities: Capabilities
    backbone: Backbone
    embed: Callable[..., Tensor]
    compute_logits: Callable[[Tensor], Tensor]
    next_logits: Callable[[Tensor, Tensor | None], Tensor]


@torch.inference_mode()
def generate(
    model: nn.Module,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    eos: int | None = None,
    mask: Tensor | None = None,
    start: int | None = None,
    stop: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> Tensor:
    """Continue prompts: tokens (B, L), mask (B, L) with pads anywhere -> the new tokens (B, N), N <= max_new_tokens.

    model        a `zoo.LanguageModel`, or one of `zoo.load` or `zoo.convert.load`; it is run in evaluation mode
    temperature  divides the logits; 0 = the most likely token, always
    top_k        draw among the k most likely tokens only; 0 = all
    top_p        draw among the fewest tokens whose probabilities reach p only (nucleus sampling, Holtzman et al. 2020)
    eos          the token that ends a row; after it the row is 0, and when all have ended generation stops
    start        what the decoder of an encoder-decoder reads first; None = eos
    stop         the new tokens so far (B, n) -> (B,) bool, the rows that end with them, as by eos
    seed         of the draws

    Raises ConfigError for a model that predicts no next token, and ValueError where its positions run out.
    """
    model = getattr(model, "lm", model)  # of a `zoo.LanguageModel`
    _check(model, tokens, max_new_tokens, temperature, top_k, top_p, start if eos is None else eos)
    generator = torch.Generator(tokens.device).manual_seed(seed)
    training = model.training
    model.eval()
    try:
        with return_state(True):
            text = begin_text(model, tokens, mask, eos if start is None else start)
            ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
            new: list[Tensor] = []
            while True:
                token = draw(text.logits, temperature, top_k, top_p, generator).masked_fill(ended, 0)
                new.append(token)
                if eos is not None:
                    ended = ended | (token == eos)
                if stop is not None:
                    ended = ended | stop(torch.stack(new, dim=1))
                ends = eos is not None or stop is not None
                if len(new) == max_new_tokens or (ends and bool(ended.all())):
                    return torch.stack(new, dim=1)
                text.append(token)
    finally:
        model.train(training)


def draw(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> Tensor:
    """Draw a token for each row: logits (B, V) -> (B,). The arguments are those of `generate`."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        beyond = probabilities.cumsum(-1) - probabilities >= top_p  # what stands before it reaches p already
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


class GrowingText(Protocol):
    """A batch of texts that grow; `logits` (B, V) are those after the last token, and `carried` is what the next one
    goes on from: None where the text is read again. Nothing in it is changed in place."""

    logits: Tensor

    @property
    def carried(self) -> State: ...

    def append(self, token: Tensor) -> None: ...


class _Steps:
    """A carried state: each token is one step."""

    def __init__(self, model: NextTokenModel, tokens: Tensor, mask: Tensor | None) -> None:
        self.model = model
        out = model.backbone.prefill(model.embed(tokens, mask), mask=mask)
        self.state = out.state
        self.position = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        if mask is not None:
            self.position = sequence_lengths(mask)
        rows = torch.arange(len(tokens), device=tokens.device)
        self.logits = model.compute_logits(out.hidden[rows, self.position - 1])

    @property
    def carried(self) -> State:
        return self.state

    def append(self, token: Tensor) -> None:
        x_t = self.model.embed(token[:, None], start=self.position)[:, 0]
        hidden, self.state = self.model.backbone.step(x_t, self.state)
        self.logits = self.model.compute_logits(hidden)
        self.position = self.position + 1


class _Rereads:
    """No step form: the whole text is read again for each token, right-padded."""

    carried: State = None

    def __init__(self, model: NextTokenModel, tokens: Tensor, mask: Tensor | None) -> None:
        self.model = model
        self.tokens, self.mask = tokens, mask
        self.logits = model.next_logits(tokens, mask)

    def append(self, token: Tensor) -> None:
        self.tokens = torch.cat([self.tokens, token[:, None]], 1)
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
            self.tokens, self.mask, _ = pack_inputs(self.tokens, self.mask)
        self.logits = self.model.next_logits(self.tokens, self.mask)


class _Decodes:
    """A decoder over an encoded source, from its state or, where it returns none, over the whole target."""

    def __init__(self, model: NextTokenModel, tokens: Tensor, mask: Tensor | None, start: int) -> None:
        self.model, self.mask = model, mask
        self.source = model.backbone(model.embed(tokens, mask), mask=mask).hidden
        self.target = tokens.new_empty(len(tokens), 0)
        self.state: Any = None
        self.append(torch.full_like(tokens[:, 0], start))

    @property
    def carried(self) -> State:
        return self.source, self.state

    def append(self, token: Tensor) -> None:
        stateful = bool(leaves(self.state))
        position = torch.full_like(token, self.target.shape[1]) if stateful else None
        self.target = torch.cat([self.target, token[:, None]], 1)
        y = self.model.embed(token[:, None] if stateful else self.target, start=position)
        state = self.state if stateful else None
        out = self.model.backbone.decode(y, memory=self.source, memory_mask=self.mask, state=state)
        self.state = out.state
        self.logits = self.model.compute_logits(out.hidden[:, -1])


def begin_text(model: Any, tokens: Tensor, mask: Tensor | None, start: int | None) -> GrowingText:
    """Read the prompts in the way that the model's architecture allows; the arguments are those of `generate`."""
    if mask is not None:
        tokens, mask, _ = pack_inputs(tokens, mask)
    if model.objective == "seq2seq":
        assert start is not None
        return _Decodes(model, tokens, mask, start)
    return _Steps(model, tokens, mask) if model.capabilities.step else _Rereads(model, tokens, mask)


def _check(
    model: Any, tokens: Tensor, max_new_tokens: int, temperature: float, top_k: int, top_p: float, start: int | None
) -> None:
    """Raise ConfigError for a model or a setting that `generate` does not take."""
    objective = getattr(model, "objective", "classify")
    if objective not in ("causal_lm", "seq2seq"):
        what = "a classifier" if objective == "classify" else f"trained for {objective}"
        raise ConfigError("model", f"{what}, which predicts no next token; model.mode causal does, on a token task")
    if objective == "seq2seq" and start is None:
        raise ConfigError("start", "a decoder needs a first token: give start or eos")
    if tokens.ndim != 2 or 0 in tokens.shape or tokens.is_floating_point():
        raise ConfigError("tokens", f"expected integer ids (batch, length), got {tuple(tokens.shape)} {tokens.dtype}")
    for name, value, fits, expected in (
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1"),
        ("temperature", temperature, temperature >= 0, "at least 0"),
        ("top_k", top_k, top_k >= 0, "at least 0"),
        ("top_p", top_p, 0 < top_p <= 1, "in (0, 1]"),
    ):
        if not fits:
            raise ConfigError(name, f"expected {expected}, got {value}")
