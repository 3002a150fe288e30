"""The checks of encoder-decoders pass a correct one, fail each fault, and do not apply to other architectures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.testing.toys import EMA, declaring
from zoo.testing import ARCHITECTURE_CHECKS, ArchitectureSubject, run_check
from zoo.testing.architectures import scopes

CHECKS = {
    c.name: c for c in ARCHITECTURE_CHECKS if c.scope in (scopes.SEQ2SEQ, scopes.DECODER, scopes.STATEFUL_DECODER)
}
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
    "reads half of the source": ["decode_depends_on_source_and_past"],
    "detached memory": ["decode_depends_on_source_and_past", "every_parameter_gets_a_gradient_from_decode"],
    "unused parameter": ["every_parameter_gets_a_gradient_from_decode"],
    "wrong gradient": ["decode_gradients_match_finite_differences"],
    "float32 inside": ["decode_precision"],
    "in place": ["decode_is_a_pure_function"],
    "memory in place": ["decode_is_a_pure_function"],
    "counts its calls": ["decode_is_a_pure_function"],
    "tensors on another device": ["decode_is_a_pure_function"],
    "forgets its state": ["decoded_chunks_equal_one_call", "decoder_state_contract"],
    "miscounts its state": ["decoder_state_contract"],
    "first row's source": ["decoder_state_contract"],
    "float16 encoder": ["decode_precision"],
    "detaches in chunks": ["decoded_chunks_equal_one_call"],
    "any state": ["decoder_state_contract"],
    "any memory": ["invalid_memory_is_refused"],
    "too few": ["decode_shapes"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_correct_encoder_decoder_passes(name: str) -> None:
    result = run_check(CHECKS[name], ArchitectureSubject(TRANSLATOR))
    assert result.status == "passed", result


@pytest.mark.parametrize(("fault", "name"), [(f, name) for f, names in FAULTS.items() for name in names])
def test_planted_faults_are_caught(fault: str, name: str) -> None:
    result = run_check(CHECKS[name], ArchitectureSubject(TRANSLATOR, overrides={"fault": fault}))
    assert result.status == "failed"
    assert result.reason


def test_a_decoder_in_another_mode_is_caught() -> None:
    both = declaring(TRANSLATOR, modes=frozenset({"seq2seq", "bidirectional"}))
    result = run_check(CHECKS["decode_shapes"], ArchitectureSubject(both))
    assert result.status == "failed"
    assert "only seq2seq may" in result.reason


@pytest.mark.parametrize("name", CHECKS)
def test_checks_do_not_apply_without_a_decoder(name: str) -> None:
    result = run_check(CHECKS[name], ArchitectureSubject(EMA))
    assert result.status == "not_declared"
    assert result.reason in ("no seq2seq mode", "no decode that returns a state")
