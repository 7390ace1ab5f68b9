"""Coverage-guided fuzzing of the GGUF reader: ``python -m tests.fuzz_gguf CORPUS -runs=100000``."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["freehold.models"]):
    from freehold.errors import Invalid
    from freehold.models.gguf import read_header
    from freehold.models.manifest import describe


def main() -> None:
    """Fuzz until told to stop; anything but ``Invalid`` is a finding."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        path = Path(name) / "model.gguf"

        def one(data: bytes) -> None:
            path.write_bytes(data)
            try:
                describe(read_header(path))
            except Invalid:
                return

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
