"""Convert checkpoints between Hugging Face transformers and zoo, in both directions, by a key map per plugin."""

from zoo.convert.bert import BERT_FIXED, BERT_UNSUPPORTED, bert_config, bert_models, bert_weights
from zoo.convert.checkpoint import convert, load
from zoo.convert.conversion import Conversion, HFConfig, Key, ModelParts
from zoo.convert.keymap import HFTensor, KeyMap, match_keys
from zoo.convert.model import PretrainedModel
from zoo.convert.modules import TokenEmbedding, language_model

__all__ = [
    "BERT_FIXED",
    "BERT_UNSUPPORTED",
    "Conversion",
    "HFConfig",
    "HFTensor",
    "Key",
    "KeyMap",
    "ModelParts",
    "PretrainedModel",
    "TokenEmbedding",
    "bert_config",
    "bert_models",
    "bert_weights",
    "convert",
    "language_model",
    "load",
    "match_keys",
]
