"""A small model on 200 real passages, as lm-evaluation-harness scores it.

`python -m tests.benchmarks.lambada_harness` makes tests/benchmarks/lambada/{tokenizer.json,model.safetensors,
harness.json} anew: it trains a byte-level BPE of 512 tokens and a GPT-2 of one layer until it has learnt some of the
last words by heart, so that right and wrong answers both occur, and runs the harness on it. It needs the packages of
the extra `harness`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "lambada"
FORMS = {"lambada_openai": "passages.jsonl", "lambada_standard": "plain.txt"}
MAX_LEN = 144
"""Shorter than half of the passages in these tokens, which so lose their beginning."""


def passages(form: str) -> list[str]:
    """The 200 passages of a form."""
    lines = (FOLDER / FORMS[form]).read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line)["text"] for line in lines] if form == "lambada_openai" else lines


def tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def blank_model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 512, "n_positions": MAX_LEN, "n_embd": 32, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)).eval()


def model() -> Any:
    """The committed weights."""
    from safetensors.torch import load_file

    found = blank_model()
    weights = {name: value.float() for name, value in load_file(FOLDER / "model.safetensors").items()}
    missing, unexpected = found.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}  # tied to the embedding
    return found


def run_harness(form: str, max_len: int, scored: Any) -> dict[str, Any]:
    """What the harness itself says: accuracy, perplexity, and per passage the log probability and whether it is
    greedy."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(HF_HOME=folder, HF_DATASETS_CACHE=folder, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        import lm_eval
        import yaml
        from lm_eval.models.huggingface import HFLM
        from transformers import PreTrainedTokenizerFast

        file = Path(folder) / "test.jsonl"
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in passages(form)]
        file.write_text("".join(lines), encoding="utf-8")
        task = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks" / "lambada" / f"{form}.yaml").read_text())
        task |= {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}}
        for key in ("dataset_name", "validation_split", "tag"):
            task.pop(key, None)
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), pad_token="!", eos_token="!")
        lm = HFLM(pretrained=scored, tokenizer=wrapped, max_length=max_len, batch_size=8, device="cpu")
        found = lm_eval.simple_evaluate(model=lm, tasks=[task], bootstrap_iters=0)
    samples = sorted(found["samples"][form], key=lambda sample: sample["doc_id"])
    return {
        "version": lm_eval.__version__,
        "max_len": max_len,
        "accuracy": found["results"][form]["acc,none"],
        "perplexity": found["results"][form]["perplexity,none"],
        "log_likelihood": [float(sample["filtered_resps"][0][0]) for sample in samples],
        "greedy": [bool(sample["filtered_resps"][0][1]) for sample in samples],
    }


def train() -> None:
    """Make tokenizer.json and model.safetensors."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from zoo_lambada.passages import encode_parts, split_passage

    torch.manual_seed(0)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(passages("lambada_openai"), trainer)
    bpe.save(str(FOLDER / "tokenizer.json"))
    rows = [encode_parts(lambda t: bpe.encode(t).ids, *split_passage(text)) for text in passages("lambada_openai")]
    learner = blank_model().train()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    for step in range(120):
        optimizer.zero_grad()
        losses = []
        for before, after in rows[step % 4 :: 4]:
            ids = torch.tensor([(before + after)[-MAX_LEN - 1 :]])
            logits = learner(input_ids=ids[:, :-1]).logits[0, -len(after) :]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(after)))
        torch.stack(losses).mean().backward()
        optimizer.step()
    weights = {k: v.half().contiguous() for k, v in learner.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, FOLDER / "model.safetensors")


def make() -> None:
    train()
    told = {form: run_harness(form, MAX_LEN, model()) for form in FORMS}
    (FOLDER / "harness.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print({form: (found["accuracy"], found["perplexity"]) for form, found in told.items()})


if __name__ == "__main__":
    make()
