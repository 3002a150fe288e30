"""Tiny third-party distributions, as wheels that pip installs: one good, one of each broken kind."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

RECORD = """
from zoo import Architecture, Capabilities, Cost, Paper, Source, Task, hookimpl

def arch(name, **other):
    return Architecture(
        name=name, title="A third party's", family="test", reference=None,
        paper=Paper(title="t", authors="a", venue="v", year=2024),
        backbone="no_such_package.backbone:Backbone", config="no_such_package.config:Config",
        capabilities=Capabilities(modes=frozenset({"causal"})),
        cost=Cost(time="O(L)", memory="O(L)", time_exponent=1.0, memory_exponent=1.0), **other)
"""

HOOK = """
@hookimpl
def zoo_architectures():
    yield arch({name!r})
"""

TASK = """
@hookimpl
def zoo_tasks():
    yield Task(name="good_task", suite="third", title="t", version="1", kind="classification", vocab_size=4, classes=2,
        length=8, metrics=("accuracy",), chance=0.5, license="CC0", source=Source(), data="m:D", options="m:O",
        protocols={})
"""


DEF = RECORD + "@hookimpl\ndef zoo_architectures():\n"


def hook(name: str) -> str:
    return RECORD + HOOK.format(name=name)


PACKAGES: dict[str, str] = {
    "good": hook("good_arch") + TASK,
    "noisy": "print('loading')\nimport sys\nsys.stdout.write('still loading')\n" + hook("noisy_arch"),
    "import-error": "import a_module_that_nobody_has\n",
    "syntax-error": "def broken(:\n    pass\n",
    "sys-exit": "import sys\nsys.exit(3)\n",
    "misspelt": RECORD + "@hookimpl\ndef zoo_architecture():\n    yield arch('misspelt_arch')\n",
    "raising-hook": RECORD
    + "@hookimpl\ndef zoo_architectures():\n    raise RuntimeError('the hook broke')\n    yield\n",
    "half-raising": hook("half_arch") + "@hookimpl\ndef zoo_tasks():\n    raise KeyError('no tasks today')\n",
    "exiting-hook": RECORD + "import sys\n@hookimpl\ndef zoo_architectures():\n    sys.exit('bye')\n",
    "newer-api": DEF + "    yield arch('newer_arch', api=99)\n",
    "older-api": DEF + "    yield arch('older_arch', api=0)\n",
    "wrong-type": DEF + "    yield {'name': 'wrong_arch'}\n",
    "not-iterable": DEF + "    return 7\n",
    "unknown-argument": RECORD + "@hookimpl\ndef zoo_architectures(config):\n    yield arch('argument_arch')\n",
    "bad-name": DEF + "    yield arch('Bad Name')\n",
    "bad-mode": DEF + "    yield Capabilities(modes={'sideways'})\n",
    "no-hooks": "answer = 42\n",
    "twice": RECORD
    + "@hookimpl\ndef zoo_architectures():\n    yield arch('twice_arch')\n    yield arch('twice_arch')\n",
    "clash-one": hook("clashing"),
    "clash-two": hook("clashing"),
    "clash-three": hook("clashing"),
    "clash-builtin": hook("mamba"),
    "a-class": RECORD
    + "class Plugin:\n    @hookimpl\n    def zoo_architectures(self):\n        yield arch('class_arch')\n",
    "a-broken-class": "class Plugin:\n    def __init__(self):\n        raise ValueError('cannot be made')\n",
    "missing-attribute": "answer = 42\n",
}
ATTRIBUTES = {"a-class": ":Plugin", "a-broken-class": ":Plugin", "missing-attribute": ":Nothing"}


def module(name: str) -> str:
    return "third_" + name.replace("-", "_")


def build_wheel(name: str, source: str, folder: Path) -> Path:
    """A wheel of one module with an entry point in the group `zoo`, as any build backend would make it."""
    dist = f"zoo_third_{name.replace('-', '_')}"
    info = f"{dist}-1.2.dist-info"
    files = {
        f"{module(name)}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: zoo-third-{name}\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[zoo]\n{name} = {module(name)}{ATTRIBUTES.get(name, '')}\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}")
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    wheel = folder / f"{dist}-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def pip_install(folder: Path) -> Path:
    """All packages, installed by pip into `folder`/site; returns that."""
    wheels = [str(build_wheel(name, source, folder)) for name, source in PACKAGES.items()]
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(site), *wheels], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return site
