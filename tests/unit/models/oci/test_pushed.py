"""What was pushed, on its way into the registry of models."""

import hashlib
from pathlib import Path

from freehold.models.oci import media
from freehold.models.oci.choose import Chosen, Layer
from freehold.models.oci.manifest import Descriptor
from freehold.models.oci.pushed import Pushed
from freehold.models.source import Origin


def test_bytes_that_another_push_takes_along_are_found_again(tmp_path: Path) -> None:
    data = b"GGUF and more"
    sha256 = hashlib.sha256(data).hexdigest()
    (tmp_path / "blob").write_bytes(data)
    places = iter((tmp_path / "moved away", tmp_path / "blob"))
    blob = Descriptor(media_type="x/y", digest=f"sha256:{sha256}", size=len(data))
    layer = Layer(blob=blob, name="m.gguf", packed=media.RAW)
    source = Pushed("pushed:m", Chosen(files=(layer,)), None, lambda _: next(places), bool)
    (tmp_path / "scratch").mkdir()
    origin = Origin(source="pushed", location="pushed:m")
    found = source.fetch(origin, tmp_path / "scratch", lambda *_: None)
    assert found.files["model.gguf"].read_bytes() == data
