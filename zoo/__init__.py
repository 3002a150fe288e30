"""zoo: compare long-context sequence architectures under one interface and one protocol.

The public names are those of `__init__.pyi`. They are loaded lazily, so that `import zoo` imports neither torch nor
lightning.
"""

from typing import Any

import lazy_loader

_attr, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from zoo.spec.registry import own_version

        return own_version()
    return _attr(name)
