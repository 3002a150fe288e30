"""The suite passes correct architectures, and each planted fault fails the check that is meant for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from tests.testing.toys import EMA, MEMORY, declaring
from zoo import Architecture, UserError
from zoo.spec.registry import registry
from zoo.testing import ARCHITECTURE_CHECKS, ArchitectureSubject, ArchitectureSuite, Subject, run_check, run_checks
from zoo.testing.architectures import scopes
from zoo.testing.architectures.growth import count_operations

TOYS = Path(__file__).parent / "toys" / "backbone.py"
BY_NAME = {c.name: c for c in ARCHITECTURE_CHECKS}
DECODE_SCOPES = (scopes.SEQ2SEQ, scopes.DECODER, scopes.STATEFUL_DECODER)
DECODE = {c.name for c in ARCHITECTURE_CHECKS if c.scope in DECODE_SCOPES}
"""Checks of encoder-decoders: tests/testing/test_decode_checks.py."""


def test_a_correct_architecture_passes() -> None:
    """Another one, also where it is traced: TestSuiteBySubclass."""
    report = run_checks(ArchitectureSubject(EMA))
    assert report.ok, report.to_text()
    quick = [c for c in ARCHITECTURE_CHECKS if not c.slow]
    assert report.count("passed") + report.count("not_declared") == len(quick) >= 60
    not_declared = {r.check for r in report.results if r.status == "not_declared"}
    assert all(r.reason for r in report.results if r.status == "not_declared")
    assert not_declared == {"activation_checkpointing_equals_plain_segments", *DECODE}


FAULTS = [
    (EMA, "a leak from the future", ["causal", "causal_with_state"]),
    (EMA, "rows mix", ["rows_do_not_mix"]),
    (EMA, "rows of the state mix", ["rows_of_the_state_do_not_mix"]),
    (EMA, "pads enter the state", ["pads_do_not_enter_the_state", "fully_masked_row_keeps_its_state"]),
    (EMA, "another step", ["step_equals_forward"]),
    (EMA, "unused parameter", ["every_parameter_gets_a_gradient", "trains_under_ddp"]),
    (EMA, "detached state", ["state_gradient_contract", "chunks_equal_one_call"]),
    (EMA, "forgets its state", ["chunks_equal_one_call", "state_changes_outputs"]),
    (EMA, "miscounts its state", ["state_size_is_correct"]),
    (EMA, "float32 inside", ["float64_stays_float64"]),
    (EMA, "autocast decides", ["no_recurrence_in_bf16"]),
    (EMA, "bare tensor", ["shapes"]),
    (EMA, "wrong gradient", ["gradients_match_finite_differences"]),
    (EMA, "random", ["deterministic", "pure_function"]),
    (EMA, "state in a buffer", ["pure_function"]),
    (EMA, "in place", ["pure_function"]),
    (EMA, "undeclared auxiliary loss", ["aux_losses_are_declared"]),
    (EMA, "tensors on another device", ["follows_the_device_of_its_input"]),
    (EMA, "quadratic", ["time_grows_as_declared", "memory_grows_as_declared"]),
    (EMA, "drifts", ["on_step_depends_on_the_step_only"]),
    (MEMORY, "pads are keys", ["left_padding_changes_nothing"]),
    (MEMORY, "NaN at pads", ["nan_in_pads_reaches_nothing"]),
    (MEMORY, "masked rows are NaN", ["fully_masked_row_is_finite"]),
    (MEMORY, "pads push rows out", ["pads_do_not_enter_the_state", "fully_masked_row_keeps_its_state"]),
    (MEMORY, "attached memory", ["state_gradient_contract"]),
    (MEMORY, "batch second", ["state_is_batch_first"]),
    (MEMORY, "any length", ["length_contract"]),
    (MEMORY, "any batch", ["state_of_another_batch_is_refused"]),
    (MEMORY, "any state", ["state_of_another_architecture_is_refused"]),
    (MEMORY, "asks for values without gradients", ["compiles_with_equal_gradients"]),
]


@pytest.mark.parametrize(
    ("architecture", "fault", "check"),
    [(a, f, c) for a, f, checks in FAULTS for c in checks],
    ids=lambda v: v if isinstance(v, str) else v.name,
)
def test_planted_faults_are_caught(architecture: Architecture, fault: str, check: str) -> None:
    result = run_check(BY_NAME[check], ArchitectureSubject(architecture, overrides={"fault": fault}))
    assert result.status == "failed"
    assert result.reason


@pytest.mark.parametrize(
    ("fault", "check", "capability", "place"),
    [
        ("a leak from the future", "causal", "mode causal", "first at row 0, position 0"),
        ("pads enter the state", "padding_changes_nothing", "padding", "first at position 0"),
        ("another step", "step_equals_forward", "step", "step and forward at position 0 differ"),
    ],
)
def test_a_failure_names_check_capability_and_first_differing_position(
    fault: str, check: str, capability: str, place: str
) -> None:
    subject = ArchitectureSubject(EMA, overrides={"fault": fault})
    report = run_checks(subject, only=[check])
    (line,) = (line for line in report.to_text().splitlines() if line.startswith(f"  {check} "))
    assert line.startswith(f"  {check} ({capability}): ")
    assert place in line


@pytest.mark.parametrize(
    ("architecture", "check"),
    [
        (
            declaring(EMA, state="none", chunk_exact=False, state_grad=False, step=False),
            "stateless_modes_refuse_a_state",
        ),
        (declaring(EMA, state_grad=False), "state_gradient_contract"),
        (declaring(MEMORY, state_grad=True), "state_gradient_contract"),
        (declaring(MEMORY, step=True), "step_equals_forward"),
        (declaring(MEMORY, chunk_exact=True), "chunks_equal_one_call"),
        (declaring(MEMORY, length="any"), "length_contract"),
        (declaring(EMA, cost={"time_exponent": 0.5}), "time_grows_as_declared"),
        (declaring(EMA, cost={"memory_exponent": 0.5}), "memory_grows_as_declared"),
        (replace(MEMORY, config="tests.testing.toys.backbone:ToyConfig"), "spec_without_torch"),
        (replace(EMA, config="tests.testing.toys.bad_presets.config:ToyConfig"), "preset_keys_exist"),
        (replace(EMA, backbone="tests.testing.toys.backbone:Missing"), "builds_from_defaults"),
    ],
    ids=lambda v: v if isinstance(v, str) else v.name,
)
def test_false_declarations_are_caught(architecture: Architecture, check: str) -> None:
    result = run_check(BY_NAME[check], ArchitectureSubject(architecture))
    assert result.status == "failed", result
    assert result.reason


def test_fused_attention_takes_quadratic_time_in_linear_memory() -> None:
    """It is one operator that keeps no scores: its work is counted from the shapes of its inputs."""
    transformer = registry().architecture("transformer").record
    linear = ArchitectureSubject(declaring(transformer, cost={"time_exponent": 1.5, "memory_exponent": 1.0}))
    assert run_check(BY_NAME["time_grows_as_declared"], linear).status == "failed"
    assert run_check(BY_NAME["memory_grows_as_declared"], linear).status == "passed"


def test_growth_is_counted_so_that_a_second_reading_is_the_same() -> None:
    subject = ArchitectureSubject(EMA, mode="causal")
    assert count_operations(subject, 64) == count_operations(subject, 64) > 64


def test_report_has_counts_and_reasons() -> None:
    only = ["state_size_is_correct", "shapes", "deterministic", sorted(DECODE)[0]]
    subject = ArchitectureSubject(declaring(EMA, aux=("x",)), overrides={"fault": "miscounts its state"})
    report = run_checks(subject, only=only)
    text = report.to_text().splitlines()
    assert text[0] == "4 checks: 2 passed, 1 not declared, 0 without data, 1 failed"
    assert text[1].startswith(
        "  state_size_is_correct (state): causal: state_size(1) is 18, but 16 elements per sample are"
    )
    data = report.to_json()
    assert (data["name"], data["passed"], data["not_declared"], data["failed"]) == ("toy_ema", 2, 1, 1)
    assert {d["check"] for d in data["details"]} == set(only)
    assert not report.ok


def test_the_root_cause_is_the_only_failure_and_the_rest_is_not_run() -> None:
    report = run_checks(ArchitectureSubject(EMA, overrides={"fault": "bare tensor"}))
    assert (report.count("failed"), report.count("not_run") > 50, report.ok) == (1, True, False)
    text = report.to_text().splitlines()
    assert text[0].endswith(f"1 failed, {report.count('not_run')} not run")
    assert text[1:] == [
        "  shapes: causal: forward returned Tensor, expected zoo.Output(hidden, state, aux): return Output(hidden)",
        "  not run: mend shapes first, which every later check needs",
    ]


def test_an_exception_names_the_line_of_the_plugin_and_checks_that_fail_alike_stand_together() -> None:
    only = ["length_contract", "deterministic"]
    report = run_checks(ArchitectureSubject(EMA, overrides={"fault": "shapes differ"}), only=only)
    assert [result.check for result in report.results] == only
    reasons = {result.reason for result in report.results}
    line = next(k for k, text in enumerate(TOYS.read_text().splitlines(), 1) if "new = a * h" in text)
    assert all(f"(tests/testing/toys/backbone.py:{line})" in reason for reason in reasons), reasons
    if len(reasons) == 1:
        assert report.to_text().splitlines()[1] == f"  length_contract, deterministic: {reasons.pop()}"


def test_only_some_checks_and_only_up_to_the_first_failure() -> None:
    subject = ArchitectureSubject(EMA, overrides={"fault": "random"})
    report = run_checks(subject, only=["deterministic", "causal"])
    assert {result.check for result in report.results} == {"deterministic", "causal"}
    stopped = run_checks(subject, stop=True)
    assert stopped.count("failed") == 1
    assert stopped.results[-1].status == "not_run"
    with pytest.raises(UserError, match="no check of toy_ema is called 'causel'; did you mean 'causal'"):
        run_checks(subject, only=["causel"])


def test_refused_widths_are_replaced_and_noted() -> None:
    result = run_check(BY_NAME["builds_from_defaults"], ArchitectureSubject(EMA, overrides={"heads": 3}))
    assert result.status == "passed"
    assert "d_model 9, max_len 64 in place of 8, 64" in result.reason


def test_seq2seq_only_is_not_declared_rather_than_passed() -> None:
    result = run_check(BY_NAME["causal"], ArchitectureSubject(declaring(MEMORY, modes=frozenset({"seq2seq"}))))
    assert result.status == "not_declared"
    result = run_check(BY_NAME["shapes"], ArchitectureSubject(declaring(MEMORY, modes=frozenset({"seq2seq"}))))
    assert (result.status, result.reason) == ("not_declared", "neither causal nor bidirectional")


def test_check_names_are_unique() -> None:
    assert len(BY_NAME) == len(ARCHITECTURE_CHECKS)


def toy_suite(fault: str, expected: str) -> ArchitectureSuite:
    """The suite of a toy with a fault, of which one check is expected to fail."""

    class ToySuite(ArchitectureSuite):
        expected_failures: ClassVar = {expected: "a toy"}

        def subject(self) -> Subject:
            return ArchitectureSubject(EMA, overrides={"fault": fault})

    return ToySuite()


def test_expected_failures_are_strict() -> None:
    size = BY_NAME["state_size_is_correct"]
    failing, correct = "miscounts its state", ""
    with pytest.raises(pytest.xfail.Exception, match=r"a toy \(causal: state_size\(1\) is 18"):
        toy_suite(failing, size.name).test_conformance(size)
    with pytest.raises(AssertionError, match="state_size_is_correct passed, though it is expected to fail: a toy"):
        toy_suite(correct, size.name).test_conformance(size)
    with pytest.raises(AssertionError, match="state_size"):
        toy_suite(failing, "shapes").test_conformance(size)
    toy_suite(correct, "shapes").test_conformance(size)
    with pytest.raises(AssertionError, match="names checks that do not exist: no_such_check"):
        toy_suite(correct, "no_such_check").test_expected_failures_name_checks()
    toy_suite(correct, size.name).test_expected_failures_name_checks()


def test_what_is_not_declared_is_skipped_and_is_no_expected_failure() -> None:
    segments = BY_NAME["activation_checkpointing_equals_plain_segments"]
    with pytest.raises(pytest.skip.Exception, match="not declared: not fed by segments"):
        toy_suite("", "shapes").test_conformance(segments)
    with pytest.raises(AssertionError, match=r"did not run \(not fed by segments\), though it is expected to fail"):
        toy_suite("", segments.name).test_conformance(segments)


class TestSuiteBySubclass(ArchitectureSuite):
    """What a plugin author writes, for an architecture that is not installed."""

    def subject(self) -> Subject:
        return ArchitectureSubject(MEMORY)
