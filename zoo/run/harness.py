"""The model `zoo` of lm-evaluation-harness 0.4: runs and checkpoints on the harness's tasks.

The harness knows a model once its class is registered; importing this module does that, and `zoo lm-eval` is the
harness's command line after it. `pip install 'seqzoo[harness]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from zoo.run.scoring import Scorer
from zoo.run.subject import load_subject
from zoo.spec.errors import ConfigError

MAX_LENGTH = 2048
"""Tokens that a checkpoint reads where its config.json does not say, as of the harness's own models."""
MAX_NEW_TOKENS = 256


@register_model("zoo")
class ZooLM(TemplateLM):
    """A model of text that zoo trained or converts.

    run            a run's folder or its record, or a checkpoint's folder
    runs           the folder of runs in which that of a record lies
    max_length     tokens that it reads at once; by default as long as in training
    add_bos_token  whether a text begins behind the symbol that begins texts; by default as the model was trained: a
                   run's does, a checkpoint's as its tokenizer.json says
    """

    def __init__(
        self,
        run: str = "",
        runs: str = "",
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown or not run:
            given = f"unknown: {', '.join(unknown)}; " if unknown else ""
            raise ConfigError("--model_args", f"{given}run=RUN is needed; max_length, add_bos_token and runs are known")
        self.subject = load_subject(run, runs=runs)
        self.add_bos_token = add_bos_token
        known = str(batch_size or 1).partition(":")[0]
        self.batch_size = 16 if known == "auto" else int(known)
        length = max_length or self.subject.trained_len or MAX_LENGTH
        # the harness's command line asks for cuda where nothing else is said
        self._device = device if device and (torch.cuda.is_available() or "cuda" not in device) else "cpu"
        self.scorer = Scorer.of(self.subject, max_length=length, batch_size=self.batch_size, device=self._device)

    @property
    def max_length(self) -> int:
        return self.scorer.max_length

    @property
    def eot_token_id(self) -> int:
        return self.subject.end if self.subject.stops is None else self.subject.stops

    @property
    def prefix_token_id(self) -> int:
        return self.subject.end

    @property
    def tokenizer_name(self) -> str:
        tokenizer = self.subject.tokenizer
        return f"{tokenizer.name}-{tokenizer.digest}" if tokenizer else ""

    def get_model_info(self) -> dict[str, Any]:
        """What the harness's results say of the model."""
        parameters = sum(p.numel() for p in self.scorer.model.parameters())
        return {"model_num_parameters": parameters, "model_sha": self.subject.weights, "zoo": self.subject.name}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, behind the begin symbol where texts of the model stand behind it."""
        begins = self.add_bos_token if add_special_tokens is None else add_special_tokens
        return self.subject.encode(string, begins=begins)

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """The text of ids."""
        return self.subject.decode(tokens)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        answers = self.scorer.log_likelihoods([(context, continuation) for _, context, continuation in requests])
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, tuple(answer))
        return [(answer.log, answer.greedy) for answer in answers]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        texts = [request.args[0] for request in requests]
        totals = self.scorer.rolling([self.tok_encode(text, add_special_tokens=False) for text in texts])
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def _ends_with(self, until: Sequence[str], longest: int, tokens: list[int]) -> bool:
        end = self.tok_decode(tokens[-longest - 4 :])  # a token has a byte at least
        return any(text in end for text in until)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        written = [""] * len(requests)
        alike: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            alike.setdefault(repr(request.args[1]), []).append(i)
        for rows in alike.values():
            options = normalize_gen_kwargs(dict(requests[rows[0]].args[1]), MAX_NEW_TOKENS)
            until = [text for text in handle_stop_sequences(options.pop("until", None), eos=None) if text]
            new = self.scorer.continuations(
                [self.tok_encode(requests[i].args[0]) or [self.prefix_token_id] for i in rows],
                int(options.pop("max_gen_toks")),
                stop=partial(self._ends_with, until, max(len(text.encode()) for text in until)) if until else None,
                temperature=float(options.get("temperature") or 0.0) if options.get("do_sample") else 0.0,
                top_k=int(options.get("top_k") or 0),
                top_p=float(options.get("top_p") or 1.0),
            )
            for i, tokens in zip(rows, new, strict=True):
                written[i] = postprocess_generated_text(self.tok_decode(tokens), until, None)
                self.cache_hook.add_partial("generate_until", requests[i].args, written[i])
        return written
