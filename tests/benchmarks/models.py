"""Small models that tests evaluate: runs made once, and a checkpoint of transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from zoo.cli import main
from zoo.spec.record import Record

TOKENIZER = Path(__file__).parent / "lambada" / "tokenizer.json"


class Runs(Protocol):
    def __call__(self, arch: str = "transformer", task: str = "wikitext", **overrides: Any) -> Record: ...


def write_checkpoint(folder: Path) -> Path:
    """A random Mamba of transformers with the tokenizer of 512 tokens."""
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 520, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
    config = MambaConfig(**sizes, bos_token_id=0, eos_token_id=0, pad_token_id=0, tie_word_embeddings=True)
    model = MambaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # far from uniform, and with a long memory
            if "embeddings" in name or ("_proj" in name and "dt" not in name):
                parameter.mul_(8)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    return folder


def reference(folder: Path) -> Any:
    """The model of a checkpoint, as transformers loads it."""
    from transformers import MambaForCausalLM

    return MambaForCausalLM.from_pretrained(folder).eval()


def zoo_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["zoo", *map(str, arguments)])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as ending:
        code = int(ending.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err
