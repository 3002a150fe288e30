"""Tasks of a user's own data: what `zoo bench --data DIR` reads, infers and trains on."""

from __future__ import annotations

from collections.abc import Iterable

from zoo import DataReader, hookimpl


@hookimpl
def zoo_data_readers() -> Iterable[DataReader]:
    """The reader of tables and text files."""
    yield DataReader(name="own", settings="zoo_own.settings:DataSettings", read="zoo_own.reader:declare")
