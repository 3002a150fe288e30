"""Compare our models with those of transformers, on the same weights and the same input: time, and memory kept.

    python -m efficiency longformer bigbird --length 2048
    python -m efficiency mamba --length 512 --json

Both models of a pair are called in turn, again and again, so that whatever else the machine does befalls both alike;
what is compared is the ratio of each turn. Pairs whose outputs differ are an error: they would not be the same work.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import transformers
import typer
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from zoo.convert import load

VOCAB, D_MODEL, N_LAYERS, N_HEADS, WINDOW = 64, 128, 2, 4, 64
DIFFERENCE = 1e-4
"""Relative difference of outputs in float32 above which two models do not compute the same."""
SECONDS, LEAST_TURNS = 8.0, 3
"""After so many seconds a pair takes no further turn, if it has had the least number."""
BERT = {
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "intermediate_size": 4 * D_MODEL,
}
PEERS: dict[str, tuple[str, str, Callable[[int], dict[str, Any]]]] = {
    # without the CUDA kernels of mamba_ssm their scan takes one token after the other
    "mamba": (
        "MambaModel",
        "MambaConfig",
        lambda seq_len: {"hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "use_cache": False},
    ),
    "longformer": (
        "LongformerModel",
        "LongformerConfig",
        lambda seq_len: {
            **BERT,
            "attention_window": [WINDOW] * N_LAYERS,
            "max_position_embeddings": seq_len + 2,  # theirs begin after the padding's id
            "pad_token_id": 1,
        },
    ),
    "bigbird": (
        "BigBirdModel",
        "BigBirdConfig",
        lambda seq_len: {
            **BERT,
            "block_size": WINDOW // 2,
            "num_random_blocks": 2,
            "max_position_embeddings": seq_len,
        },
    ),
    "nystromformer": (
        "NystromformerModel",
        "NystromformerConfig",
        lambda seq_len: {
            **BERT,
            "num_landmarks": WINDOW,
            "segment_means_seq_len": seq_len,
            "max_position_embeddings": seq_len,
        },
    ),
    "longt5": (
        "LongT5EncoderModel",
        "LongT5Config",
        lambda seq_len: {
            "d_model": D_MODEL,
            "d_kv": D_MODEL // N_HEADS,
            "d_ff": 4 * D_MODEL,
            "num_heads": N_HEADS,
            "num_layers": N_LAYERS,
            "encoder_attention_type": "transient-global",
            "local_radius": WINDOW - 1,
        },
    ),
    "perceiver": (
        "PerceiverForMaskedLM",
        "PerceiverConfig",
        lambda seq_len: {
            "d_model": D_MODEL,
            "d_latents": D_MODEL,
            "num_latents": WINDOW,
            "num_self_attends_per_block": N_LAYERS,
            "num_self_attention_heads": N_HEADS,
            "qk_channels": D_MODEL,
            "v_channels": D_MODEL,
            "max_position_embeddings": seq_len,
        },
    ),
}
"""Name of our architecture -> model and configuration of transformers, and its sizes at a length."""


def build_peer(name: str, seq_len: int) -> Any:
    """A small random model of transformers, in evaluation mode."""
    model, config, sizes = PEERS[name]
    return getattr(transformers, model)(getattr(transformers, config)(vocab_size=VOCAB, **sizes(seq_len))).eval()


@dataclass(frozen=True)
class Row:
    """What one pair takes at one length. Ratios are ours over theirs, below 1 where ours is faster or keeps less.

    seconds  of the fastest call, ours and theirs
    ratio    median of the turns, with its quartiles
    bytes    that a forward pass keeps for the backward pass, parameters not counted
    """

    architecture: str
    peer: str
    seq_len: int
    work: str
    seconds: tuple[float, float]
    ratio: tuple[float, float, float]
    bytes: tuple[int, int]


def outputs(model: Any, ids: Tensor) -> Any:
    """Hidden vectors or logits of either model."""
    options = {}
    if isinstance(model, transformers.LongformerModel):  # ours reads the first token globally
        options["global_attention_mask"] = torch.zeros_like(ids).index_fill(1, torch.tensor(0), 1)
    found = model(ids, **options)
    return found[0] if isinstance(found, tuple) else next(iter(found.values()))


def kept_bytes(model: nn.Module, ids: Tensor) -> int:
    """Bytes that autograd keeps between forward and backward, each storage once, parameters not counted."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = outputs(model, ids)
    del alive
    return sum(kept.values())


def infer(model: nn.Module, ids: Tensor) -> None:
    """A forward pass without gradients."""
    with torch.inference_mode():
        outputs(model, ids)


def train(model: nn.Module, ids: Tensor) -> None:
    """A forward and a backward pass."""
    model.zero_grad()
    outputs(model, ids).square().mean().backward()


def take_turns(
    call: Callable[[nn.Module, Tensor], None], ours: nn.Module, theirs: nn.Module, ids: Tensor, n: int
) -> list[tuple[float, float]]:
    """CPU seconds (ours, theirs) of up to n turns, which are begun by either. A first turn is not counted."""
    found: list[tuple[float, float]] = []
    for turn in range(n + 1):
        seconds = dict[str, float]()
        for side, model in (("ours", ours), ("theirs", theirs)) if turn % 2 else (("theirs", theirs), ("ours", ours)):
            start = time.process_time()
            call(model, ids)
            seconds[side] = time.process_time() - start
        found.append((seconds["ours"], seconds["theirs"]))
        if turn >= LEAST_TURNS and sum(map(sum, found)) > SECONDS:
            break
    return found[1:]


def compare(name: str, seq_len: int, batch: int, n: int) -> list[Row]:
    """Measure one architecture and its peer at one length: inference and training. Raises where outputs differ."""
    torch.manual_seed(0)
    theirs = build_peer(name, seq_len)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load(folder)
    ids = torch.randint(5, VOCAB, (batch, seq_len))
    with torch.inference_mode():
        a, b = outputs(ours, ids), outputs(theirs, ids)
    difference = ((a - b).norm() / b.norm()).item()
    if not difference < DIFFERENCE:
        raise SystemExit(f"{name}: outputs differ by {difference:.2g} (relative norm): not the same computation")
    kept = (kept_bytes(ours, ids), kept_bytes(theirs, ids))
    rows = []
    for work in (infer, train):
        times = take_turns(work, ours, theirs, ids, n)
        low, median, high = statistics.quantiles([x / y for x, y in times], n=4)
        fastest = (min(x for x, _ in times), min(y for _, y in times))
        rows.append(Row(name, type(theirs).__name__, seq_len, work.__name__, fastest, (median, low, high), kept))
    return rows


def cells(row: Row) -> list[str]:
    """A line of the table."""
    median, low, high = row.ratio
    ours, theirs = row.bytes
    memory = f"{ours / theirs:.2f}" if row.work == "train" else ""
    milliseconds = [f"{1e3 * s:.1f}" for s in row.seconds]
    spread = f"{median:.2f} ({low:.2f}–{high:.2f})"
    return [row.architecture, row.peer, f"{row.seq_len:,}", row.work, *milliseconds, spread, memory]


HEADER = ["architecture", "peer", "tokens", "work", "ours, ms", "peer, ms", "time: ours / peer", "memory: ours / peer"]


def main(
    architectures: Annotated[list[str] | None, typer.Argument(help="All that have a peer when none is named.")] = None,
    length: Annotated[list[int] | None, typer.Option(help="Tokens; may be repeated [512, 2048].")] = None,
    batch: Annotated[int, typer.Option(help="Sequences.")] = 2,
    repeats: Annotated[int, typer.Option(min=2, help="Turns of each pair.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows as JSON.")] = False,
) -> None:
    """Compare our models with those of transformers on the same weights and input, on one thread of this CPU."""
    unknown = sorted(set(architectures or ()) - set(PEERS))
    if unknown:
        raise typer.BadParameter(f"no peer of {', '.join(unknown)}; there are {', '.join(PEERS)}")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    pairs = [(name, seq_len) for name in architectures or PEERS for seq_len in length or (512, 2048)]
    rows = [row for name, seq_len in tqdm(pairs, unit="pair") for row in compare(name, seq_len, batch, repeats)]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print(tabulate([cells(row) for row in rows], HEADER, disable_numparse=True))
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, float32, one thread, batch {batch}")


if __name__ == "__main__":
    typer.run(main)
