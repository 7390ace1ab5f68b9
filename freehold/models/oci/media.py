"""The media types of ModelPack v0.0.7, and of the others that hold a model's file as it is."""

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1"
DOC = "application/vnd.cncf.model.doc.v1"
CODE = "application/vnd.cncf.model.code.v1"
DATASET = "application/vnd.cncf.model.dataset.v1"
RAW, TAR, GZIP, ZSTD = ".raw", ".tar", ".tar+gzip", ".tar+zstd"

FILEPATH = "org.cncf.model.filepath"
METADATA = "org.cncf.model.file.metadata+json"

BARE_GGUF = (
    "application/vnd.ollama.image.model",
    "application/vnd.docker.ai.gguf.v3",
    "application/vnd.gguf",
)
"""Layers that are one GGUF file, and need no name."""


def packing(media_type: str) -> tuple[str, str] | None:
    """Return (what it holds, how it is packed) of a ModelPack layer, None for another's."""
    for kind in (WEIGHT_CONFIG, WEIGHT, DOC, CODE, DATASET):
        if media_type.startswith(kind + "."):
            packed = media_type[len(kind) :]
            return (kind, packed) if packed in (RAW, TAR, GZIP, ZSTD) else None
    return None
