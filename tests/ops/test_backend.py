"""The choice of forms: what requests a backend, which request counts, and what is reported."""

from __future__ import annotations

import pytest
import torch

from zoo import ConfigError
from zoo.ops.backend import choose_form, forms_that_ran, register_op, survey, use_backend

CPU = torch.device("cpu")
register_op("test_op", lambda device_type: ("triton", "reference") if device_type == "cuda" else ("reference",))


def test_the_best_form_of_the_device_runs_and_is_noted() -> None:
    forms_that_ran(reset=True)
    assert choose_form("test_op", torch.device("cuda")) == "triton"
    assert choose_form("test_op", CPU) == "reference"
    assert forms_that_ran(reset=True) == {"test_op": "reference+triton"}
    assert forms_that_ran() == {}


def test_the_environment_counts_before_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_BACKEND", "reference")
    with use_backend("triton"):
        assert choose_form("test_op", torch.device("cuda")) == "reference"
        with use_backend(None):
            assert choose_form("test_op", torch.device("cuda")) == "triton"


def test_a_missing_form_is_an_error() -> None:
    with use_backend("triton"), pytest.raises(ConfigError, match="'triton' is not available for test_op here"):
        choose_form("test_op", CPU)
    with use_backend("cuda"), pytest.raises(ConfigError, match="expected one of auto, reference, torch, numba, triton"):
        choose_form("test_op", CPU)
    with use_backend("torch"), pytest.raises(ConfigError, match="it has reference"):
        choose_form("attention", CPU, among=("reference",))


def test_the_survey_lists_every_op_with_several_forms() -> None:
    ops = {row["op"] for row in survey()}
    attention = {"attention", "blocked_attention", "gated_linear_attention", "retention"}
    assert ops >= attention | {"selective_scan", "diagonal_scan", "diagonal_kernel", "dplr_kernel", "fft_conv"}
