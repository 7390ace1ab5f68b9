"""What this machine computes with, and which build of llama.cpp fits that.

``look`` reads what the kernel lists; everything else is pure: hardware and tools in, a backend and
the options of its build out. That a card is listed says little of its driver: a build that does not
answer like the wheel, or no faster, is not used anyway.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import msgspec

from freehold.errors import Invalid, Missing

Backend = Literal["cuda", "rocm", "metal", "vulkan", "cpu"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
"""Fastest first, where several fit."""
VENDORS = MappingProxyType({"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"})
"""Makers of cards, by their number on the PCI bus."""
CLASSES = ("0x03", "0x12")
"""Displays and accelerators, by the beginning of their class there."""
NODES = ("dev/nvidia[0-9]*", "dev/nvhost-gpu", "dev/nvgpu", "dev/kfd", "dev/dxg",
         "dev/dri/renderD*")  # fmt: skip
"""Devices that programs compute with, as drivers make them."""
PLACES = ("/usr/local/cuda/bin", "/opt/cuda/bin", "/opt/rocm/bin")
"""Where compilers lie that nobody put on the path."""
AMD_TARGETS = "gfx908;gfx90a;gfx942;gfx1030;gfx1100;gfx1101;gfx1102;gfx1151;gfx1200;gfx1201"
"""Cards that are built for where there is none to ask."""

Find = Callable[[str], str | None]


class Need(msgspec.Struct, frozen=True):
    """What a backend is compiled with beside C++: a program, and where one gets it."""

    program: str
    package: str


NEEDS: Mapping[Backend, Need] = MappingProxyType(
    {
        "cuda": Need("nvcc", "the CUDA toolkit"),
        "rocm": Need("hipcc", "ROCm with its HIP SDK"),
        "vulkan": Need("glslc", "glslc, libvulkan-dev and spirv-headers"),
    }
)


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel lists: its own name, makers of graphics cards, devices to compute with."""

    system: str
    vendors: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()

    def has(self, *names: str) -> bool:
        """Say whether there is a device whose path begins so."""
        return any(node.startswith(names) for node in self.nodes)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A backend to build, and what a faster one for this hardware would take, "" if none is."""

    backend: Backend
    advice: str = ""


def look(root: Path = Path("/"), system: str = sys.platform) -> Hardware:
    """Return what there is; a listing that cannot be read lists nothing."""
    vendors = set()
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            kind = (device / "class").read_text(encoding="ascii").strip()
            maker = (device / "vendor").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if kind.startswith(CLASSES) and maker in VENDORS:
            vendors.add(VENDORS[maker])
    nodes = {f"/{path.relative_to(root)}" for shape in NODES for path in root.glob(shape)}
    return Hardware(system=system, vendors=frozenset(vendors), nodes=frozenset(nodes))


def fitting(hardware: Hardware) -> tuple[Backend, ...]:
    """Return the backends that this hardware can be used with, fastest first. Pure.

    A maker's own comes before Vulkan, which any card with a driver speaks; screens of servers and
    virtual machines have no device to compute with, so for them there is the processor.
    """
    if hardware.system == "darwin":
        return ("metal", "cpu")
    # Boards with an NVIDIA chip, and Windows below Linux, list no card on the bus.
    nvidia = hardware.has("/dev/nvidia", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")
    fits: dict[Backend, bool] = {
        "cuda": nvidia,
        "rocm": hardware.has("/dev/kfd") and "amd" in hardware.vendors,
        "vulkan": hardware.has("/dev/dri/renderD", "/dev/nvidia"),
        "cpu": True,
    }
    return tuple(name for name in BACKENDS if fits.get(name))


def choose(wanted: str, hardware: Hardware, which: Find) -> Choice:
    """Return what to build: the backend wanted, or the fastest that fits and can be built. Pure.

    One that is wanted by name need not find its card: it may be built before that is there.
    """
    fits = fitting(hardware)
    if wanted == "auto":
        backend = next(name for name in fits if find(name, which) is not None)
        better = fits[: fits.index(backend)]
        lacks = " or ".join(f"{NEEDS[name].package} ({name})" for name in better)
        return Choice(
            backend=backend,
            advice=f"there is a graphics card: {lacks} to build for it is missing" if lacks else "",
        )
    for backend in BACKENDS:
        if wanted == backend:
            break
    else:
        raise Invalid(
            "invalid.backend", f"no backend {wanted!r:.40}: choose {', '.join(BACKENDS)} or auto"
        )
    if backend == "metal" and hardware.system != "darwin":
        raise Missing("missing.compiler", "cannot build for metal here: that takes macOS")
    if find(backend, which) is None:
        need = NEEDS[backend]
        raise Missing(
            "missing.compiler",
            f"cannot build for {backend} here: {need.program} is missing; install {need.package}",
        )
    return Choice(backend=backend)


def find(backend: Backend, which: Find) -> str | None:
    """Return the compiler that a backend needs, "" for one that needs none, None if missing."""
    if backend not in NEEDS:
        return ""
    program = NEEDS[backend].program
    found = (which(place) for place in (program, *(f"{each}/{program}" for each in PLACES)))
    return next((path for path in found if path), None)


def options(backend: Backend, hardware: Hardware, compiler: str) -> tuple[str, ...]:
    """Return what CMake is told for a backend. Pure.

    One binary is kept of a build, so what belongs to it is put into it; on a machine without the
    card there is nothing to ask which one, so what is built is for all that are common.
    """
    metal = ("-DGGML_METAL=OFF",) if hardware.system == "darwin" else ()
    if backend == "cuda":
        here = "cuda" in fitting(hardware)
        return ("-DGGML_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={compiler}",
                *(() if here else ("-DCMAKE_CUDA_ARCHITECTURES=all-major",)))  # fmt: skip
    if backend == "rocm":
        here = "rocm" in fitting(hardware)
        return ("-DGGML_HIP=ON", *(() if here else (f"-DGPU_TARGETS={AMD_TARGETS}",)))
    if backend == "vulkan":
        return ("-DGGML_VULKAN=ON", *metal)
    if backend == "metal":
        return ("-DGGML_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON")
    return metal


def surroundings(backend: Backend, compiler: str) -> Mapping[str, str]:
    """Return what the tools of a backend are told in their environment. Pure."""
    root = Path(compiler).parent.parent
    if backend == "rocm" and root != Path("/usr"):
        return {"ROCM_PATH": str(root), "HIP_PATH": str(root),
                "HIPCXX": str(root / "llvm" / "bin" / "clang++")}  # fmt: skip
    return {}
