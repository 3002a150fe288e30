"""`zoo convert` on small random models of transformers: equal logits in both directions, and its errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.convert import HFTensor, PretrainedModel, convert, load, match_keys
from zoo.convert.keymap import export_tensors, import_tensors
from zoo.spec.errors import ConfigError, DataError, UserError, ZooError
from zoo.spec.registry import registry

VOCAB, LENGTH = 23, 24


class Live(NamedTuple):
    """A class of transformers, the configuration of a small model of it, and how the two are compared."""

    arch: str
    model: str
    config: str
    options: dict[str, Any]
    call: Callable[[Any, PretrainedModel, Tensor, Tensor], tuple[Tensor, Tensor]]
    tolerance: float = 1e-9


SINGLE = 2e-5
"""transformers computes RMS norms and the head in float32, whatever the weights are."""


def hidden(theirs: Any, ours: PretrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return theirs(ids).last_hidden_state, ours(ids).logits


def logits(theirs: Any, ours: PretrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """For causal models, and for Nyströmformer, whose transformers code fails on a mask (5.23)."""
    return theirs(ids).logits, ours(ids).logits


def global_first(theirs: Any, ours: PretrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Our Longformer's first token is global: pass theirs the same mask."""
    first = torch.zeros_like(ids)
    first[:, 0] = 1
    out = theirs(ids, attention_mask=mask.long(), global_attention_mask=first)
    expected, actual = out.logits if "logits" in out else out.last_hidden_state, ours(ids, mask).logits
    return (expected[mask], actual[mask]) if expected.ndim == 3 else (expected, actual)


def full_last_block(theirs: Any, ours: PretrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Their last global block is that of the padding, ours the example's: every example ends in the last block."""
    mask = mask | (torch.arange(LENGTH) < LENGTH - 1)
    out, actual = theirs(ids, attention_mask=mask.long()), ours(ids, mask).logits
    name = next(name for name in ("logits", "prediction_logits", "last_hidden_state") if name in out)
    return out[name][mask], actual[mask]


def seq2seq_logits(theirs: Any, ours: PretrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    answer = ids[:, :7].flip(1)
    expected = theirs(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=answer)
    return expected.logits, ours(ids, mask, decoder_ids=answer).logits


def masked_hidden(theirs: Any, ours: PretrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return theirs(ids, attention_mask=mask.long()).last_hidden_state[mask], ours(ids, mask).logits[mask]


def masked_logits(theirs: Any, ours: PretrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One output per query or class, all of which are compared."""
    return theirs(ids, attention_mask=mask.long()).logits, ours(ids, mask).logits


def hidden_from_vectors(theirs: Any, ours: PretrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.sin(ids[..., None] * torch.arange(1.0, 9.0, dtype=torch.float64))
    return theirs(x, attention_mask=mask.long()).last_hidden_state, ours(x, mask).logits


MAMBA = {"hidden_size": 8, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 2, "vocab_size": VOCAB}
BERT = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "vocab_size": VOCAB,
    "max_position_embeddings": 40,
    "num_labels": 3,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
NYSTROM = BERT | {"num_landmarks": 4, "segment_means_seq_len": LENGTH, "conv_kernel_size": 5}
LONG = BERT | {"attention_window": 4}
# 12 blocks: sparse
BIG = BERT | {"block_size": 2, "num_random_blocks": 1, "rescale_embeddings": True}
T5 = {
    "d_model": 8,
    "d_kv": 3,
    "d_ff": 12,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "vocab_size": VOCAB,
    "local_radius": 3,
    "global_block_size": 4,
}
TGLOBAL = T5 | {"encoder_attention_type": "transient-global", "feed_forward_proj": "gated-gelu"}
UNTIED = TGLOBAL | {"tie_word_embeddings": False}
PERCEIVER = {
    "d_model": 8,
    "d_latents": 12,
    "num_latents": 5,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 3,
    "qk_channels": 6,
    "v_channels": 12,
    "vocab_size": VOCAB,
    "max_position_embeddings": 30,
    "num_labels": 3,
}
OTHER_WIDTHS = {"qk_channels": None, "cross_attention_shape_for_attention": "q", "use_query_residual": False}
LIVE = [
    Live("mamba", "MambaForCausalLM", "MambaConfig", MAMBA, logits, SINGLE),
    Live(
        "mamba",
        "MambaForCausalLM",
        "MambaConfig",
        MAMBA | {"tie_word_embeddings": False, "use_bias": True},
        logits,
        SINGLE,
    ),
    Live("mamba", "MambaModel", "MambaConfig", MAMBA | {"use_conv_bias": False, "expand": 3}, hidden, SINGLE),
    Live("nystromformer", "NystromformerForMaskedLM", "NystromformerConfig", NYSTROM, logits),
    Live("nystromformer", "NystromformerForSequenceClassification", "NystromformerConfig", NYSTROM, logits),
    Live("nystromformer", "NystromformerModel", "NystromformerConfig", NYSTROM, hidden),
    Live("longformer", "LongformerForMaskedLM", "LongformerConfig", LONG, global_first, SINGLE),
    Live("longformer", "LongformerForSequenceClassification", "LongformerConfig", LONG, global_first, SINGLE),
    Live("longformer", "LongformerModel", "LongformerConfig", LONG, global_first, SINGLE),
    Live("bigbird", "BigBirdForMaskedLM", "BigBirdConfig", BIG, full_last_block),
    Live("bigbird", "BigBirdForMaskedLM", "BigBirdConfig", BIG | {"tie_word_embeddings": False}, full_last_block),
    Live(
        "bigbird",
        "BigBirdForMaskedLM",
        "BigBirdConfig",
        BIG | {"attention_type": "original_full"},
        full_last_block,
    ),
    Live("bigbird", "BigBirdForSequenceClassification", "BigBirdConfig", BIG, logits),
    Live("bigbird", "BigBirdForPreTraining", "BigBirdConfig", BIG, full_last_block),
    Live("bigbird", "BigBirdModel", "BigBirdConfig", BIG, full_last_block),
    Live("longt5", "LongT5ForConditionalGeneration", "LongT5Config", T5, seq2seq_logits, SINGLE),
    Live("longt5", "LongT5ForConditionalGeneration", "LongT5Config", UNTIED, seq2seq_logits, SINGLE),
    Live("longt5", "LongT5EncoderModel", "LongT5Config", TGLOBAL, masked_hidden, SINGLE),
    Live("perceiver", "PerceiverForMaskedLM", "PerceiverConfig", PERCEIVER, masked_logits),
    Live("perceiver", "PerceiverForSequenceClassification", "PerceiverConfig", PERCEIVER, masked_logits),
    Live("perceiver", "PerceiverModel", "PerceiverConfig", PERCEIVER | OTHER_WIDTHS, hidden_from_vectors),
]
NAMES = [f"{live.model}-{i}" for i, live in enumerate(LIVE)]


def save_random_model(live: Live, folder: Path) -> Any:
    """A random model of transformers in double precision, no parameter at its initial value, saved into `folder`."""
    torch.manual_seed(0)
    options = dict(live.options)
    if live.arch == "mamba" and "expand" in options:
        options["intermediate_size"] = options["expand"] * options["hidden_size"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(transformers, live.model)(getattr(transformers, live.config)(**options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("live", LIVE, ids=NAMES)
def test_logits_are_equal_there_and_back(live: Live, tmp_path: Path) -> None:
    theirs = save_random_model(live, tmp_path / "hf")
    done = convert(live.arch, tmp_path / "hf", tmp_path / "ours")
    assert done.form == "zoo"
    ours = load(tmp_path / "ours")
    ids = torch.randint(2, VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(LENGTH) < torch.tensor([LENGTH, LENGTH - 5])[:, None]
    with torch.no_grad():
        expected, actual = live.call(theirs, ours, ids, mask)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(actual.to(expected.dtype), expected, rtol=live.tolerance, atol=live.tolerance)
        # and back: the same tensors, and transformers gives the same logits (it loads some of T5's weights in float32)
        assert convert(live.arch, tmp_path / "ours", tmp_path / "back").form == "huggingface"
        first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "back"))
        assert set(second) == set(first)
        assert all(torch.equal(first[key], second[key]) for key in first)
        back = getattr(transformers, live.model).from_pretrained(tmp_path / "back", dtype=torch.float64).eval()
        again, _ = live.call(back, ours, ids, mask)
        torch.testing.assert_close(again, expected, rtol=live.tolerance, atol=live.tolerance)


def test_every_architecture_that_transformers_has_is_here() -> None:
    with_conversion = {name for name, entry in registry().architectures.items() if entry.record.conversion}
    assert with_conversion == {live.arch for live in LIVE}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_random_model(LIVE[0], tmp_path / "hf")
    return tmp_path / "hf"


def edit(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_whatever_does_not_fit_is_listed_and_nothing_is_written(checkpoint: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors["backbone.layers.0.mixer.D"]
        tensors["backbone.layers.7.mixer.D"] = torch.zeros(16)
        tensors["backbone.norm_f.weight"] = torch.zeros(5)
        tensors["lm_head.weight"] = torch.zeros(VOCAB, 8)

    edit(checkpoint, spoil)
    with pytest.raises(DataError) as caught:
        convert("mamba", checkpoint, tmp_path / "ours")
    text = str(caught.value)
    assert "4 tensors do not fit" in text
    assert "missing: backbone.layers.0.mixer.D" in text
    assert "unexpected: backbone.layers.7.mixer.D (16,)" in text
    assert "shape: backbone.norm_f.weight (5,), expected (8,)" in text
    assert "differs: lm_head.weight from backbone.embeddings.weight" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_tied_weights_that_a_checkpoint_keeps_twice_are_read(checkpoint: Path, tmp_path: Path) -> None:
    def twice(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["backbone.embeddings.weight"].clone()

    edit(checkpoint, twice)
    convert("mamba", checkpoint, tmp_path / "ours")


def test_shards_are_read(checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    keys = sorted(tensors)
    where = {}
    for i, part in enumerate((keys[::2], keys[1::2])):
        save_file({key: tensors[key] for key in part}, checkpoint / f"model-{i}.safetensors")
        where |= dict.fromkeys(part, f"model-{i}.safetensors")
    convert("mamba", checkpoint, tmp_path / "whole")
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    convert("mamba", checkpoint, tmp_path / "shards")
    whole, shards = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "shards"))
    assert all(torch.equal(whole[key], shards[key]) for key in whole)
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../hf/x.safetensors"}}))
    with pytest.raises(DataError, match="outside"):
        convert("mamba", checkpoint, tmp_path / "other")


def test_pickles_are_not_read(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"no model\.safetensors \(pytorch_model\.bin may run code"):
        convert("mamba", checkpoint, tmp_path / "ours")


def test_a_damaged_file_is_named(checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"model\.safetensors: "):
        convert("mamba", checkpoint, tmp_path / "ours")
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: "):
        convert("mamba", checkpoint, tmp_path / "ours")


def test_another_model_and_unknown_variants_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    for change, error, says in (
        ({"model_type": "bert"}, UserError, "'bert', but mamba reads 'mamba'"),
        ({"hidden_act": "relu"}, ConfigError, "hidden_act: 'relu'"),
        ({"architectures": ["MambaForOrigami"]}, ConfigError, "MambaForOrigami.*MambaForCausalLM"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(error, match=says):
            convert("mamba", checkpoint, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    with pytest.raises(UserError, match="s4 has no conversion"):
        convert("s4", checkpoint, tmp_path / "ours")


def test_what_is_there_is_kept_without_force(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "ours"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="--force"):
        convert("mamba", checkpoint, target)
    assert (target / "mine.txt").read_text() == "mine"
    with pytest.raises(UserError, match="is the checkpoint itself"):
        convert("mamba", checkpoint, checkpoint, force=True)
    convert("mamba", checkpoint, target, force=True)
    assert not (target / "mine.txt").exists()
    shutil.rmtree(target)


def test_the_command(checkpoint: Path, tmp_path: Path) -> None:
    def zoo(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "zoo", "convert", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    named = zoo("--arch", "mamba", "--from", checkpoint)
    assert named.returncode == 0, named.stderr
    assert (tmp_path / "hf-zoo" / "zoo.json").is_file()
    assert zoo("--arch", "mamba", "--from", tmp_path / "hf-zoo").returncode == 0
    assert (tmp_path / "hf-zoo-huggingface" / "config.json").is_file()
    done = zoo("--arch", "mamba", "--from", checkpoint, "--to", tmp_path / "ours", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["form"] == "zoo"
    again = zoo("--arch", "mamba", "--from", checkpoint, "--to", tmp_path / "ours")
    assert (again.returncode, again.stdout) == (2, "")
    assert len(again.stderr.splitlines()) == 1


def test_a_key_map_concatenates_transposes_and_squeezes() -> None:
    """The longest pattern applies, and the export is the inverse."""
    key_map = {
        "blocks.{layer}": "h.{layer}",
        "blocks.{layer}.qkv.weight": HFTensor(("h.{layer}.q.weight", "h.{layer}.k.weight"), transpose=True),
        "blocks.{layer}.conv": HFTensor("h.{layer}.conv1d", squeeze=(1, 3)),
    }
    shapes = {
        "blocks.3.norm.weight": torch.Size([4]),
        "blocks.12.qkv.weight": torch.Size([3, 4]),
        "blocks.0.conv.weight": torch.Size([5, 2]),
    }
    sources = match_keys(key_map, shapes)
    theirs = {
        "h.3.norm.weight": torch.randn(4),
        "h.12.q.weight": torch.randn(2, 3),
        "h.12.k.weight": torch.randn(2, 3),
        "h.0.conv1d.weight": torch.randn(5, 1, 2, 1),
    }
    ours = import_tensors(theirs, sources, shapes, aliases={}, where="here")
    both = torch.cat([theirs["h.12.q.weight"], theirs["h.12.k.weight"]])
    torch.testing.assert_close(ours["blocks.12.qkv.weight"], both.T, rtol=0, atol=0)
    exported = export_tensors(ours, sources)
    assert set(exported) == set(theirs)
    assert all(torch.equal(exported[key], tensor) for key, tensor in theirs.items())
    with pytest.raises(ZooError, match=r"no entry for our tensor final_norm\.weight"):
        match_keys(key_map, ["final_norm.weight"])
