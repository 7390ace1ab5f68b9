"""Which engine fits which machine: listings as their kernels give them, and what is built there."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from freehold.errors import Invalid, Missing
from freehold.models.engines.build import plan
from freehold.models.engines.hardware import (
    AMD_TARGETS,
    NEEDS,
    Hardware,
    choose,
    fitting,
    look,
    options,
)


class Listing(NamedTuple):
    """What a machine lists: (class, maker) of what is on its bus, its devices; what fits it."""

    bus: tuple[tuple[str, str], ...]
    nodes: tuple[str, ...]
    fits: tuple[str, ...]
    system: str = "linux"


NVIDIA, AMD, INTEL = "0x10de", "0x1002", "0x8086"
BRIDGE = ("0x060000", INTEL)
BMC = ("0x030000", "0x1a03")  # the screen of a server: nothing to compute with
MACHINES = {
    "a server with an H100": Listing(
        (BRIDGE, BMC, ("0x030200", NVIDIA)), ("nvidia0", "nvidiactl", "nvidia-uvm", "dri/card0"),
        ("cuda", "vulkan", "cpu"),
    ),
    "a server with an MI300X": Listing(
        (BRIDGE, BMC, ("0x120000", AMD)), ("kfd", "dri/card0", "dri/card1", "dri/renderD128"),
        ("rocm", "vulkan", "cpu"),
    ),
    "a desktop with a Radeon": Listing(
        (BRIDGE, ("0x030000", AMD)), ("kfd", "dri/card0", "dri/renderD128"),
        ("rocm", "vulkan", "cpu"),
    ),
    "a Radeon whose kernel has no compute driver": Listing(
        (("0x030000", AMD),), ("dri/card0", "dri/renderD128"), ("vulkan", "cpu")
    ),
    "a desktop with an Arc": Listing(
        (BRIDGE, ("0x030000", INTEL)), ("dri/card0", "dri/renderD128"), ("vulkan", "cpu")
    ),
    "a laptop with Intel and NVIDIA": Listing(
        (BRIDGE, ("0x030000", INTEL), ("0x030200", NVIDIA)),
        ("dri/card0", "dri/card1", "dri/renderD128", "dri/renderD129", "nvidia0", "nvidiactl"),
        ("cuda", "vulkan", "cpu"),
    ),
    "an NVIDIA card with the free driver": Listing(
        (("0x030000", NVIDIA),), ("dri/card0", "dri/renderD128"), ("vulkan", "cpu")
    ),
    "an NVIDIA card without a driver": Listing((("0x030200", NVIDIA),), (), ("cpu",)),
    "a board with a Mali": Listing((), ("dri/card0", "dri/renderD128"), ("vulkan", "cpu")),
    "a Jetson": Listing((), ("nvhost-gpu", "nvmap"), ("cuda", "cpu")),
    "a server with nothing but its screen": Listing((BRIDGE, BMC), ("dri/card0",), ("cpu",)),
    "a virtual machine": Listing(
        (BRIDGE, ("0x030000", "0x1234"), ("0x020000", "0x1af4")), ("dri/card0",), ("cpu",)
    ),
    "an EPYC with nothing but its own coprocessors": Listing(
        (("0x108000", AMD), ("0x060000", AMD)), ("kfd",), ("cpu",)
    ),
    "a Mac": Listing((), (), ("metal", "cpu"), "darwin"),
}  # fmt: skip


def listed(folder: Path, machine: Listing) -> Hardware:
    for number, (kind, maker) in enumerate(machine.bus):
        device = folder / "sys/bus/pci/devices" / f"0000:{number:02x}:00.0"
        device.mkdir(parents=True)
        (device / "class").write_text(kind + "\n")
        (device / "vendor").write_text(maker + "\n")
    for name in machine.nodes:
        node = folder / "dev" / name
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
    return look(folder, machine.system)


def only(*names: str) -> Callable[[str], str | None]:
    """Find just these programs."""
    return lambda name: f"/opt/bin/{name}" if name in names else None


ALL = only(*(need.program for need in NEEDS.values()))


@pytest.mark.parametrize("name", MACHINES)
def test_each_machine_gets_what_fits_it(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name]
    found = listed(tmp_path, machine)
    assert fitting(found) == machine.fits
    best = choose("auto", found, ALL)
    assert (best.backend, best.advice) == (machine.fits[0], "")
    # Without compilers for cards it is the processor, and what would help is said.
    bare = choose("auto", found, only())
    assert bare.backend == ("metal" if machine.system == "darwin" else "cpu")
    for backend in machine.fits:
        assert (backend in NEEDS and NEEDS[backend].package in bare.advice) == (backend in NEEDS)


def test_vulkan_serves_where_the_makers_own_is_not_installed(tmp_path: Path) -> None:
    found = listed(tmp_path, MACHINES["a server with an H100"])
    best = choose("auto", found, only("glslc"))
    assert best.backend == "vulkan"
    assert best.advice == (
        "there is a graphics card: the CUDA toolkit (cuda) to build for it is missing"
    )


def test_one_that_is_named_needs_its_compiler_only() -> None:
    nothing = Hardware(system="linux")
    assert choose("cuda", nothing, only("nvcc")).backend == "cuda"
    with pytest.raises(Missing, match="hipcc is missing; install ROCm"):
        choose("rocm", nothing, only("nvcc"))
    with pytest.raises(Missing, match="takes macOS"):
        choose("metal", nothing, ALL)
    with pytest.raises(Invalid, match="choose cuda, rocm, metal, vulkan, cpu or auto"):
        choose("abacus", nothing, ALL)


def test_compilers_off_the_path_are_found() -> None:
    """As both makers install theirs."""
    found = plan("cuda", Hardware(system="linux"), only("/usr/local/cuda/bin/nvcc"))
    assert "-DCMAKE_CUDA_COMPILER=/opt/bin//usr/local/cuda/bin/nvcc" in found.options
    rocm = plan(
        "rocm", Hardware(system="linux"), lambda name: name if "/opt/rocm" in name else None
    )
    assert rocm.surroundings == {
        "ROCM_PATH": "/opt/rocm", "HIP_PATH": "/opt/rocm", "HIPCXX": "/opt/rocm/llvm/bin/clang++",
    }  # fmt: skip
    debian = plan("rocm", Hardware(system="linux"), lambda name: f"/usr/bin/{name}")
    assert debian.surroundings == {}


def test_options_of_each_backend(tmp_path: Path) -> None:
    """As llama.cpp's own pages and CMake files have them; for cards that are not here, for all."""
    none, mac = Hardware(system="linux"), Hardware(system="darwin")
    h100 = listed(tmp_path / "n", MACHINES["a server with an H100"])
    radeon = listed(tmp_path / "a", MACHINES["a desktop with a Radeon"])
    cuda = ("-DGGML_CUDA=ON", "-DCMAKE_CUDA_COMPILER=/c/nvcc")
    assert options("cuda", h100, "/c/nvcc") == cuda
    assert options("cuda", none, "/c/nvcc") == (*cuda, "-DCMAKE_CUDA_ARCHITECTURES=all-major")
    assert options("rocm", radeon, "hipcc") == ("-DGGML_HIP=ON",)
    assert options("rocm", none, "hipcc") == ("-DGGML_HIP=ON", f"-DGPU_TARGETS={AMD_TARGETS}")
    assert options("vulkan", radeon, "glslc") == ("-DGGML_VULKAN=ON",)
    assert options("cpu", h100, "") == ()
    assert options("metal", mac, "") == ("-DGGML_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON")
    # There Metal is on unless it is switched off.
    assert options("cpu", mac, "") == ("-DGGML_METAL=OFF",)
    assert options("vulkan", mac, "glslc") == ("-DGGML_VULKAN=ON", "-DGGML_METAL=OFF")


def test_a_listing_that_cannot_be_read_lists_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "sys/bus/pci/devices/0"
    broken.mkdir(parents=True)
    (broken / "class").write_bytes(b"\xff\xff")
    assert look(tmp_path, "linux") == Hardware(system="linux")
