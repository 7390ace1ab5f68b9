"""What a file really is, by its bytes first and its name last. Pure: a name and bytes in.

The name of a file is what somebody calls it. Loaders look at bytes, and so does this; a name only
adds to the suspicion.
"""

import re
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Literal

Kind = Literal[
    "gguf", "safetensors", "onnx", "json", "template", "text", "sentencepiece", "picture",
    "numbers", "pickle", "archive", "program", "graph", "unknown",
]  # fmt: skip

HEAD = 4096
"""Bytes of a file's beginning that are looked at."""
TAIL = 65_535 + 22
"""Bytes of a file's end in which a zip archive begins its directory."""

_MAGICS: tuple[tuple[int, bytes, Kind, str], ...] = (
    (0, b"GGUF", "gguf", "a GGUF file"),
    (0, b"PK\x03\x04", "archive", "a zip archive, perhaps a PyTorch or Keras model"),
    (0, b"PK\x05\x06", "archive", "a zip archive"),
    (0, b"PK\x07\x08", "archive", "a zip archive in parts"),
    (0, b"7z\xbc\xaf\x27\x1c", "archive", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "archive", "a RAR archive"),
    (0, b"\x1f\x8b", "archive", "gzip-compressed"),
    (4, b"1AY&SY", "archive", "bzip2-compressed"),
    (0, b"\xfd7zXZ\x00", "archive", "xz-compressed"),
    (0, b"\x5d\x00\x00", "archive", "lzma-compressed"),
    (0, b"\x28\xb5\x2f\xfd", "archive", "zstd-compressed"),
    (0, b"\x04\x22\x4d\x18", "archive", "lz4-compressed"),
    (0, b"\x78\x01", "archive", "zlib-compressed"),
    (0, b"\x78\x5e", "archive", "zlib-compressed"),
    (0, b"\x78\x9c", "archive", "zlib-compressed"),
    (0, b"\x78\xda", "archive", "zlib-compressed"),
    (0, b"ZF0x", "archive", "a compressed joblib file"),
    (0, b"MSCF", "archive", "a cabinet archive"),
    (257, b"ustar", "archive", "a tar archive"),
    (0, b"\x89HDF\r\n\x1a\n", "graph", "an HDF5 file, in which Keras keeps code"),
    (512, b"\x89HDF\r\n\x1a\n", "graph", "an HDF5 file, in which Keras keeps code"),
    (1024, b"\x89HDF\r\n\x1a\n", "graph", "an HDF5 file, in which Keras keeps code"),
    (2048, b"\x89HDF\r\n\x1a\n", "graph", "an HDF5 file, in which Keras keeps code"),
    (0, b"\x7fELF", "program", "a program"),
    (0, b"MZqFpD", "program", "a program for any system, perhaps a llamafile"),
    (0, b"jartsr='", "program", "a program for any system"),
    (0, b"MZ", "program", "a program for Windows"),
    (0, b"\xcf\xfa\xed\xfe", "program", "a program for macOS"),
    (0, b"\xfe\xed\xfa\xcf", "program", "a program for macOS"),
    (0, b"\xca\xfe\xba\xbe", "program", "a program for macOS or Java"),
    (0, b"#!", "program", "a script"),
    (0, b"\x00asm", "program", "a WebAssembly program"),
    (0, b"\x93NUMPY", "numbers", "a NumPy array"),
    (0, b"\x89PNG\r\n", "picture", "a picture"),
    (0, b"\xff\xd8\xff", "picture", "a picture"),
    (0, b"GIF8", "picture", "a picture"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_NAMES: MappingProxyType[str, Kind] = MappingProxyType(
    {
        ".gguf": "gguf",
        ".safetensors": "safetensors",
        ".onnx": "onnx",
        ".json": "json",
        ".jinja": "template",
        ".jinja2": "template",
        ".j2": "template",
        ".md": "text",
        ".txt": "text",
        ".toml": "text",
        ".yaml": "text",
        ".yml": "text",
        ".tiktoken": "text",
        ".model": "sentencepiece",
        ".spm": "sentencepiece",
        ".png": "picture",
        ".jpg": "picture",
        ".jpeg": "picture",
        ".gif": "picture",
        ".webp": "picture",
        ".svg": "text",
        ".npy": "numbers",
        **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".pt2",
                         ".ptl", ".pte", ".mar"), "pickle"),
        **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst",
                         ".npz", ".nemo", ".whl", ".jar"), "archive"),
        **dict.fromkeys((".py", ".pyc", ".pyd", ".pyw", ".so", ".dll", ".dylib", ".exe", ".sh",
                         ".bat", ".ps1", ".js", ".ipynb", ".wasm", ".llamafile"), "program"),
        **dict.fromkeys((".h5", ".hdf5", ".keras", ".pb", ".pbtxt", ".mlmodel"), "graph"),
    }
)  # fmt: skip
_TEXTS = re.compile(
    r"(LICEN[CS]E|NOTICE|COPYING|README|USE_POLICY|MODEL_CARD|\.gitattributes|\.gitignore)"
    r"([._-][\w.-]*)?",
    re.IGNORECASE,
)
EXECUTES = MappingProxyType(
    {
        "pickle": "a Python pickle runs what it likes when it is loaded, and is never loaded here",
        "archive": "archives are not opened: unpack it where that is safe, and import what is in "
        "it",
        "program": "a model is data, and this is code",
        "graph": "its loaders run code that it holds: convert it to safetensors or ONNX",
    }
)
"""Kinds that are refused whatever they hold, and why."""


def kind_of(name: str, head: bytes) -> tuple[Kind, str]:
    """Return what a file is, and how to say that."""
    if _PICKLE.match(head):
        return "pickle", "a Python pickle"
    for at, magic, kind, title in _MAGICS:
        if head[at : at + len(magic)] == magic and (magic != b"MZ" or b"\0" in head[:64]):
            return kind, title
    if is_old_tar(head):
        return "archive", "a tar archive"
    named = _by_name(name)
    if named != "gguf" and named not in EXECUTES and is_safetensors(head):
        return "safetensors", "a safetensors file"
    if named is not None:
        return named, f"called {PurePosixPath(name).name[-60:]!r}"
    return "unknown", "of no known kind"


def is_safetensors(head: bytes) -> bool:
    """Say whether a file begins like safetensors: a small length, then a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def is_old_tar(head: bytes) -> bool:
    """Say whether a file begins like a tar archive of before there was a magic: by its checksum."""
    told = head[148:156].strip(b" \0")
    if len(head) < 512 or not head[0] or not told or not set(told) <= set(b"01234567"):
        return False
    return int(told, 8) == sum(head[:148]) + 8 * 32 + sum(head[156:512])


def ends_as_zip(tail: bytes) -> bool:
    """Say whether a zip archive's directory closes the file: what lies before does not matter.

    Readers differ in what of a directory's end they believe: its count, its size, its comment's
    length, or the larger record before it. So none of these makes it no archive.
    """
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if len(tail) - at >= 22:
            if b"PK\x01\x02" in tail[:at] or tail[max(0, at - 20) : at][:4] == b"PK\x06\x07":
                return True
            comment = int.from_bytes(tail[at + 20 : at + 22], "little")
            entries = int.from_bytes(tail[at + 10 : at + 12], "little")
            size = int.from_bytes(tail[at + 12 : at + 16], "little")
            if entries and size > at and at + 22 + comment <= len(tail):
                return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return False


def _by_name(name: str) -> Kind | None:
    path = PurePosixPath(name)
    kinds = [_NAMES.get(suffix.lower()) for suffix in path.suffixes]
    # The last suffix counts, and any that would make code of it: model.pkl.txt is both.
    if _TEXTS.fullmatch(path.name) and not (kinds and kinds[-1] in EXECUTES):
        return "text"  # README.pt.md is Portuguese
    return next((kind for kind in kinds if kind in EXECUTES), kinds[-1] if kinds else None)
