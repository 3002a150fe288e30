"""The checks of encoder-decoders pass what is sound and catch each planted fault; other architectures are not asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.testing.toys import EMA, declaring
from zoo.testing import Subject
from zoo.testing.checks_decode import CHECKS as DECODE
from zoo.testing.checks_decode_state import CHECKS as STATE
from zoo.testing.report import run_check

CHECKS = {c.name: c for c in (*DECODE, *STATE)}
TRANSLATOR = replace(
    EMA,
    name="toy_translator",
    backbone="tests.testing.toys.translator:Translator",
    capabilities=replace(
        EMA.capabilities, modes=frozenset({"seq2seq"}), state="none", chunk_exact=False, state_grad=False, step=False
    ),
)
FAULTS = {
    "a leak from the future": ["decode_is_causal"],
    "rows mix": ["decode_rows_do_not_mix"],
    "pads are keys": ["source_padding_changes_nothing", "masked_memory_is_not_read"],
    "masked rows are NaN": ["fully_masked_source_is_finite"],
    "reads half of the source": ["decode_sees_source_and_past"],
    "detached memory": ["decode_sees_source_and_past", "every_parameter_learns_from_answers"],
    "unused parameter": ["every_parameter_learns_from_answers"],
    "wrong gradient": ["answers_gradients_match_differences"],
    "float32 inside": ["decode_precision"],
    "in place": ["decode_is_a_pure_function"],
    "counts its calls": ["decode_is_a_pure_function"],
    "tensors on another device": ["decode_is_a_pure_function"],
    "forgets its state": ["decoded_pieces_equal_the_whole", "decoder_state_is_sound"],
    "miscounts its state": ["decoder_state_is_sound"],
    "any state": ["decoder_state_is_sound"],
    "any memory": ["wrong_memory_is_refused"],
    "too few": ["decode_shapes"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_sound_encoder_decoder_passes(name: str) -> None:
    result = run_check(CHECKS[name], Subject(TRANSLATOR))
    assert result.status == "passed", result


@pytest.mark.parametrize(("fault", "name"), [(f, name) for f, names in FAULTS.items() for name in names])
def test_planted_faults_are_caught(fault: str, name: str) -> None:
    result = run_check(CHECKS[name], Subject(TRANSLATOR, overrides={"fault": fault}))
    assert result.status == "failed"
    assert result.reason


def test_a_decoder_in_another_mode_is_caught() -> None:
    both = declaring(TRANSLATOR, modes=frozenset({"seq2seq", "bidirectional"}))
    result = run_check(CHECKS["decode_shapes"], Subject(both))
    assert result.status == "failed"
    assert "only seq2seq has a decoder" in result.reason


@pytest.mark.parametrize("name", CHECKS)
def test_architectures_without_a_decoder_are_not_asked(name: str) -> None:
    result = run_check(CHECKS[name], Subject(EMA))
    assert (result.status, result.reason) == ("not_declared", "no seq2seq mode")
