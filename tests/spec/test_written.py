"""What `--set` and configuration files say is what a run gets: no text passes a parser, numbers are decimal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge

from zoo import ConfigError, UserError
from zoo.spec.config import validate_layer
from zoo.spec.written import parse_overrides, read_yaml


@dataclass
class Options:
    text: str = ""
    whole: int = 0
    count: Annotated[int, Ge(1)] = 1
    number: float = 0.0
    truth: bool = False
    choice: Literal["auto", "no", "10"] = "auto"
    size: Literal[0, 1024] = 0
    limit: int | None = 3
    texts: list[str] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


def value_of(key: str, written: str) -> Any:
    """The value of a field under `--set`, its type the field's own."""
    return validate_layer(parse_overrides([f"t.{key}={written}"]), {"t": Options}, "--set")[f"t.{key}"]


TEXTS = (
    *("/x/lra #2", "1.10", "010", "007", "1_000", "12:30", "a: b", "0x10", "1e3", ".5", "inf", "nan", " 7 ", "", " "),
    *("None", "null", "true", "yes", "off", "~", "~/x", "${oc.env:HOME}", "${model.d_model}", "$HOME", "a=b", "[a]"),
    *("{a: 1}", "- a", "'q'", '"q"', "a,b", "*x", "&x", "!x", "%x", "@x", "?", "|", "a\nb", "C:\\new", "\u00e9 \u4e2d"),
    *("2024-01-01", "123456789012345678901234567890", "\udcff"),
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_verbatim_on_the_command_line(text: str) -> None:
    assert value_of("text", text) == text
    assert type(value_of("text", text)) is str


@pytest.mark.parametrize("text", ["/x/lra #2", "1.10", "010", "1_000", "12:30", "None", "true", "${x}", "1e3"])
def test_a_text_is_taken_verbatim_from_a_configuration_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"t.text: '{text}'\n", encoding="utf-8")
    assert validate_layer(read_yaml("--config", file), {"t": Options}, "file")["t.text"] == text


def test_scalars_of_a_configuration_file_are_read_as_those_of_set(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    nested = "t:\n  text: 1.10  # a comment\n  whole: 010\n  number: 1e-3\n  truth: yes\n  choice: no\n"
    for encoding, end in (("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\n")):
        file.write_bytes((nested + "  counts: [010, 7]\n  texts: [1.10, no]\n").replace("\n", end).encode(encoding))
        layer = validate_layer(read_yaml("--config", file), {"t": Options}, "file")
        assert layer == {
            "t.text": "1.10",
            "t.whole": 10,
            "t.number": 0.001,
            "t.truth": True,
            "t.choice": "no",
            "t.counts": [10, 7],
            "t.texts": ["1.10", "no"],
        }


def test_a_key_that_is_there_twice_and_what_is_no_mapping_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    for contents, complaint in (
        ("t: {a: 1, a: 2}", "'a' is there twice"),
        ("- a", "expected a mapping"),
        ("{", "c.yaml"),
    ):
        file.write_text(contents)
        with pytest.raises(UserError, match=complaint):
            read_yaml("--config", file)
    file.write_text("")
    assert read_yaml("--config", file) == {}


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        *(
            ("whole", text, n)
            for text, n in (("010", 10), ("007", 7), (" 7 ", 7), ("1_000", 1000), ("-3", -3), ("+3", 3))
        ),
        *(
            ("number", text, x)
            for text, x in (("1e3", 1000.0), (".5", 0.5), ("010", 10.0), ("3", 3.0), ("1_0.5", 10.5))
        ),
        *(("truth", text, t) for text, t in (("true", True), ("True", True), ("no", False), (" off ", False))),
        *(("choice", text, text) for text in ("no", "10")),
        *(("size", text, n) for text, n in (("1024", 1024), ("01024", 1024), ("0", 0))),
        *(("limit", text, n) for text, n in (("null", None), ("None", None), ("8", 8))),
        *(("texts", text, ["1.10", "010", "no"]) for text in ("1.10,010,no", "[1.10, 010, no]", "['1.10', 010,no]")),
        *(("numbers", text, [0.9, 1.0, 1000.0]) for text in ("0.9,1,1e3", "[0.9, 1, 1e3]")),
        *(("counts", text, x) for text, x in (("010,7", [10, 7]), ("[8]", [8]), ("8", [8]), ("[]", []), ("", []))),
    ],
)
def test_other_fields_read_the_text_as_their_type_and_numbers_are_decimal(key: str, written: str, value: Any) -> None:
    assert value_of(key, written) == value
    assert type(value_of(key, written)) is type(value)


@pytest.mark.parametrize(
    ("key", "written", "got"),
    [
        *(("whole", text, repr(text)) for text in ("0x10", "0b1", "12:30", "", "${x}", "7 8")),
        ("whole", "1e3", "1000.0"),
        ("count", "0", "0"),
        ("count", "-1", "-1"),
        ("truth", "1", "1"),
        ("truth", "maybe", "'maybe'"),
        ("choice", "Auto", "'Auto'"),
        ("size", "1000", "1000"),
        ("counts", "1,x", "'1,x'"),
    ],
)
def test_what_is_no_value_of_the_field_is_refused_as_it_was_written(key: str, written: str, got: str) -> None:
    with pytest.raises(ConfigError) as caught:
        value_of(key, written)
    assert f"got {got}" in str(caught.value)


@pytest.mark.parametrize("written", ["inf", "-inf", "nan", "Infinity", "1e999"])
def test_numbers_are_finite(written: str) -> None:
    with pytest.raises(ConfigError, match="expected a finite number"):
        value_of("number", written)


def test_values_from_python_are_not_read_as_text() -> None:
    with pytest.raises(ConfigError, match="expected integer, got '8'"):
        validate_layer({"t.whole": "8"}, {"t": Options}, "overrides")
