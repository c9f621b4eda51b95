"""What this installation of saal_fast is made of."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from importlib import metadata

import torch

from saal_fast import _native

from ._utils.proofs import findings


@dataclass(frozen=True)
class Config:
    """What `show_config` found; printing it gives a table.

    Attributes:
        versions: Version by package, "absent" where there is none.
        built: What was compiled, with what, and what of it runs here.
        engines: The scoring engines' names.
        devices: What computes here, by device.
        proofs: Which fused operations have proved themselves on a GPU so far, and which were left out and why.
    """

    versions: dict[str, str]
    built: dict[str, str]
    engines: tuple[str, ...]
    devices: dict[str, str]
    proofs: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        sections = {
            "versions": self.versions,
            "built": self.built,
            "engines": dict.fromkeys(self.engines, ""),
            "devices": self.devices,
            **({"proofs": self.proofs} if self.proofs else {}),
        }
        width = max(len(key) for section in sections.values() for key in section)
        lines = []
        for title, section in sections.items():
            lines.append(title)
            lines += [f"  {key:<{width}}  {value}".rstrip() for key, value in section.items()]
        return "\n".join(lines)


def show_config() -> Config:
    """Looks up versions, what was built and why something wasn't, engines and devices.

    It also works where the C++ core doesn't load, and then says why.

    Returns:
        The findings; `print` them for a table.
    """
    from saal_fast import engines  # noqa: PLC0415 - heavier than the rest of this file, and not always wanted

    return Config(versions=_versions(), built=_built(), engines=tuple(engines.NAMES), devices=_devices(), proofs=findings())


def _versions() -> dict[str, str]:
    found = {"saal_fast": _version("saal-fast"), "python": platform.python_version()}
    return found | {name: _version(name) for name in ("torch", "numpy", "triton", "torchvision")}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _built() -> dict[str, str]:
    try:
        core = _native.core()
    except ImportError as error:
        return {"C++ core": f"doesn't load: {error}"}
    cuda = _native.cuda()
    return {
        "C++ core": f"{core.compiler}, {core.flags}",
        "instruction sets": f"{', '.join(core.built_isas())}; {core.usable_isas()[-1]} runs here",
        "CUDA module": core.cuda,
        "CUDA module here": _native.why_no_cuda() if cuda is None else _cuda_here(*cuda.devices()),
    }


def _cuda_here(devices: int, why_none: str) -> str:
    return f"loads, {devices} device(s)" if devices else f"loads, no device: {why_none}"


def _devices() -> dict[str, str]:
    devices = {"cpu": f"{torch.get_num_threads()} threads of {os.cpu_count()} CPUs"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            devices[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    return devices
