"""How the package is built: by flit, which knows nothing of C. If the core compiles, it is put into the wheel then.

It leaves nothing beside the sources, but the core itself for an editable install. ``BOSSWORKER_PURE=1`` makes a wheel
without it, for any platform.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from build_core import NAME, build_beside, compile_core
from flit_core import buildapi
from flit_core.buildapi import (  # noqa: F401 - the other hooks of a build backend
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
)

MEMBER = f"bossworker/{NAME}"


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    name = buildapi.build_wheel(wheel_directory, config_settings, metadata_directory)
    with tempfile.TemporaryDirectory() as folder:
        core = Path(folder) / NAME
        return _with_core(Path(wheel_directory) / name, core.read_bytes()) if compile_core(core) else name


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    build_beside()
    return buildapi.build_editable(wheel_directory, config_settings, metadata_directory)


def _with_core(pure: Path, core: bytes) -> str:
    """A wheel for this platform in the place of one for all."""
    tag = "cp311-abi3-" + re.sub(r"[-.]", "_", sysconfig.get_platform())
    made = pure.with_name(pure.name.replace("py3-none-any", tag))
    with zipfile.ZipFile(pure) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        record, lines = "", _line(MEMBER, core)
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                record = item.filename
                continue
            if item.filename.endswith(".dist-info/WHEEL"):
                text = data.decode().replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
                data = re.sub(r"^Tag: .*$", f"Tag: {tag}", text, flags=re.MULTILINE).encode()
            lines += _line(item.filename, data)
            new.writestr(item, data)
        new.writestr(MEMBER, core)
        new.writestr(record, f"{lines}{record},,\n")
    pure.unlink()
    return made.name


def _line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"
