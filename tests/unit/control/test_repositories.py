"""The registry's own rules, on a real database and real files: what is kept, and what goes."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from freehold.control.pushes import Pushes
from freehold.control.repositories import Repositories, check_repository, failing
from freehold.control.uploads import Uploads
from freehold.errors import (
    Conflict,
    DigestMismatch,
    FreeholdError,
    Invalid,
    Missing,
    Refused,
    Unavailable,
)
from freehold.models.oci.attached import attach, bundles_of
from freehold.models.oci.manifest import MANIFEST, Manifest, read_manifest
from freehold.models.papers import MOST_SIGNATURES, Papers
from freehold.models.pipeline import Workshop
from freehold.models.registry import Registry
from freehold.models.signing.bundle import MEDIA_TYPE, Bundle, encode
from freehold.models.signing.statement import make_statement
from freehold.models.signing.trust import Trust
from freehold.settings import Licences, Signing
from freehold.settings import Registry as Settings
from freehold.store.blobs import Blobs
from freehold.store.database import Database
from tests.make_gguf import gguf
from tests.registries import digest, layer, manifest

MODEL = gguf()


class Rig(NamedTuple):
    repositories: Repositories
    pushes: Pushes
    shop: Workshop
    registry: Registry


def quiet(*_: object) -> None:
    return


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return make(tmp_path)


def make(folder: Path, *, any_artifact: bool = False) -> Rig:
    database, blobs = Database(folder / "f.db"), Blobs(folder / "blobs")
    registry = Registry(database, blobs)
    papers = Papers(database, registry, Trust(Signing()))
    found = Repositories(database, registry, papers, blobs, Uploads(folder / "registry"))
    shop = Workshop(
        sources={}, blobs=blobs, registry=registry, scratch=folder / "scratch", papers=papers
    )
    return Rig(found, Pushes(found, blobs, Settings(any_artifact=any_artifact)), shop, registry)


def upload(rig: Rig, data: bytes, repository: str = "m") -> str:
    path = rig.repositories.uploads.path(repository, rig.repositories.uploads.begin(repository))
    path.write_bytes(data)
    rig.repositories.finish(repository, path, digest(data), time.time())
    return digest(data)


def push(rig: Rig, data: bytes, tag: str = "v1", repository: str = "m") -> int | None:
    found, chosen = rig.pushes.check(repository, tag, data, None)
    return rig.pushes.take(repository, tag, data, found, chosen, rig.shop, quiet, time.time(), "me")


def push_model(rig: Rig) -> bytes:
    upload(rig, b"{}")
    upload(rig, MODEL)
    made = manifest(layer(MODEL, "m.gguf"))
    assert push(rig, made) == 1
    return made


def test_what_nobody_names_goes_and_what_somebody_does_stays(rig: Rig) -> None:
    push_model(rig)
    loose = upload(rig, b"loose")
    begun = rig.repositories.uploads.begin("m")
    assert rig.repositories.sweep(3600) == 0
    assert rig.repositories.has("m", loose) == 5
    path = rig.repositories.uploads.path("m", begun)
    os.utime(path, (1, 1))
    assert rig.repositories.sweep(-1) == 1
    assert rig.repositories.has("m", loose) is None
    assert not path.exists()
    for data in (b"{}", MODEL):
        assert rig.repositories.has("m", digest(data)) == len(data)


def test_the_same_bytes_lie_in_one_place_once_they_are_a_version(rig: Rig) -> None:
    push_model(rig)
    assert rig.repositories.uploads.blob(digest(MODEL)[7:]) is None
    assert rig.repositories.blob("m", digest(MODEL))[0] == rig.shop.blobs.path(digest(MODEL)[7:])


def test_what_a_licence_keeps_here_is_not_handed_on(rig: Rig, tmp_path: Path) -> None:
    push_model(rig)
    database = Database(tmp_path / "f.db")
    registry = Registry(database, rig.shop.blobs, Licences(unknown="ask"))
    strict = Repositories(
        database, registry, rig.shop.papers, rig.shop.blobs, rig.repositories.uploads
    )
    with pytest.raises(Refused, match="must be accepted"):
        strict.check_leaving("m", digest(MODEL))
    with pytest.raises(Refused, match="must be accepted"):
        strict.mount("n", digest(MODEL), "m", 1.0)
    assert strict.has("m", digest(MODEL)) == len(MODEL)
    rig.repositories.check_leaving("m", digest(MODEL))


def test_a_manifest_of_a_removed_version_goes_with_the_sweep(rig: Rig) -> None:
    made = push_model(rig)
    rig.registry.remove_model("m")
    with pytest.raises(Missing):
        rig.repositories.manifest("m", digest(made))
    assert rig.repositories.sweep(-1) == 1
    assert rig.repositories.names() == []
    # And all of it can come again, as the next number.
    upload(rig, b"{}")
    upload(rig, MODEL)
    assert push(rig, made) == 2


def bundle_over(*files: bytes) -> bytes:
    """Return a bundle that says it is over these files; whose it is, nobody has asked yet."""
    named = {str(n): digest(data)[7:] for n, data in enumerate(files)}
    return encode(Bundle(payload=make_statement("m", named), signature=b"by somebody"))


def test_signatures_refer_to_the_version_they_are_over(rig: Rig) -> None:
    made = push_model(rig)
    version = rig.registry.version("m", 1)
    assert rig.repositories.referrers("m", digest(made)) == []
    bundle = bundle_over(MODEL)
    rig.shop.papers.sign(version, bundle, 1.0, "me")
    (listed,) = rig.repositories.referrers("m", digest(made))
    assert listed["artifactType"] == MEDIA_TYPE
    assert rig.repositories.referrers("m", digest(b"{}")) == []
    served = rig.repositories.manifest("m", str(listed["digest"]))
    found = read_manifest(served.content, served.media_type)
    assert isinstance(found, Manifest)
    assert found.subject is not None
    assert (found.subject.digest, found.subject.size) == (digest(made), len(made))
    assert digest(served.content) == listed["digest"]
    (blob,) = bundles_of(found)
    assert rig.repositories.blob("m", blob.digest) == (bundle, len(bundle))
    assert rig.repositories.blob("m", found.config.digest)[1] == 2


def test_a_signature_that_is_kept_already_comes_again_whatever_their_number(rig: Rig) -> None:
    push_model(rig)
    version = rig.registry.version("m", 1)
    bundles = [bundle_over(MODEL, str(n).encode()) for n in range(MOST_SIGNATURES + 1)]
    for bundle in (*bundles[:-1], bundles[0]):
        rig.shop.papers.sign(version, bundle, 1.0, "me")
    with pytest.raises(Invalid, match="already"):
        rig.shop.papers.sign(version, bundles[-1], 1.0, "me")


@pytest.mark.parametrize(("over", "kept"), [(MODEL, 1), (b"other bytes", 0)])
def test_a_signature_that_is_pushed_is_kept_with_the_version(
    rig: Rig, over: bytes, kept: int
) -> None:
    made = push_model(rig)
    bundle = bundle_over(over)
    upload(rig, bundle)
    about = attach(bundle, made, MANIFEST).manifest
    assert push(rig, about, digest(about)) is None
    assert [row.bundle for row in rig.shop.papers.signatures("m", 1)] == [bundle] * kept
    assert [each["digest"] for each in rig.repositories.referrers("m", digest(made))] == [
        digest(about)
    ]


def test_an_upload_is_finished_once(rig: Rig) -> None:
    begun = rig.repositories.uploads.begin("m")
    path = rig.repositories.uploads.path("m", begun)
    path.write_bytes(MODEL)
    rig.repositories.finish("m", path, digest(MODEL), 1.0)
    with pytest.raises(Missing, match="another request has finished"):
        rig.repositories.finish("m", path, digest(MODEL), 1.0)
    for odd in (begun, "../" + begun, "x" * 32, ""):
        with pytest.raises(Missing):
            rig.repositories.uploads.path("other", odd)


def test_what_a_gateway_hashed_is_not_read_again_and_all_else_is(rig: Rig) -> None:
    uploads, known = rig.repositories.uploads, f"{len(MODEL)}:{digest(MODEL)[7:]}"

    def begun(data: bytes) -> Path:
        path = uploads.path("m", uploads.begin("m"))
        path.write_bytes(data)
        return path

    # Nobody else writes there, so it is believed: with other bytes one sees that.
    rig.repositories.finish("m", begun(bytes(len(MODEL))), digest(MODEL), 1.0, known)
    place = uploads.blob(digest(MODEL)[7:])
    assert place is not None
    assert place.read_bytes() == bytes(len(MODEL))
    for other in (b"x", known.replace(":", "0:"), f":{digest(MODEL)[7:]}", f"{len(MODEL)}:"):
        with pytest.raises(DigestMismatch):
            rig.repositories.finish("m", begun(b"other"), digest(MODEL), 1.0, str(other))
    with pytest.raises(DigestMismatch, match=digest(b"{}")):
        rig.repositories.finish("m", begun(b"ab"), digest(MODEL), 1.0, f"2:{digest(b'{}')[7:]}")


def test_an_upload_that_is_written_to_is_not_finished(rig: Rig) -> None:
    path = rig.repositories.uploads.path("m", rig.repositories.uploads.begin("m"))
    path.write_bytes(MODEL)
    with path.open("r+b") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another request writes"):
            rig.repositories.finish("m", path, digest(MODEL), 1.0)
    assert path.read_bytes() == MODEL
    rig.repositories.finish("m", path, digest(MODEL), 1.0)


def test_a_damaged_blob_that_is_pushed_again_is_read(rig: Rig) -> None:
    """What was stored before this push was hashed long ago: it does not pass unread."""
    made = push_model(rig)
    stored = rig.shop.blobs.path(digest(MODEL)[7:])
    stored.chmod(0o644)
    stored.write_bytes(MODEL[:-1] + b"\1")
    with pytest.raises(DigestMismatch, match="nothing was kept"):
        push(rig, made, "v2")
    assert [each.row.number for each in rig.repositories.versions("m")] == [1]


def test_other_bytes_are_deleted(rig: Rig) -> None:
    path = rig.repositories.uploads.path("m", rig.repositories.uploads.begin("m"))
    path.write_bytes(b"other")
    with pytest.raises(DigestMismatch, match="nothing was kept"):
        rig.repositories.finish("m", path, digest(MODEL), 1.0)
    assert not path.exists()
    assert rig.repositories.has("m", digest(MODEL)) is None


def test_artifacts_that_are_no_models_only_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    strict, open_ = make(tmp_path / "a"), make(tmp_path / "b", any_artifact=True)
    made = manifest(layer(b"text", "notes.txt", "text/plain"))
    for each in (strict, open_):
        upload(each, b"{}")
        upload(each, b"text")
    with pytest.raises(Invalid, match="holds no model"):
        push(strict, made)
    assert push(open_, made) is None
    assert open_.repositories.manifest("m", "v1").content == made
    assert open_.registry.names() == []
    open_.repositories.remove("m", digest(made))
    with pytest.raises(Missing):
        open_.repositories.manifest("m", "v1")


def test_an_index_names_what_is_there(tmp_path: Path) -> None:
    rig = make(tmp_path, any_artifact=True)
    made = push_model(rig)
    kind = "application/vnd.oci.image.index.v1+json"
    inner = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(made),
             "size": len(made)}  # fmt: skip
    whole = {"schemaVersion": 2, "mediaType": kind, "manifests": [inner]}
    assert push(rig, json.dumps(whole).encode(), "list") is None
    inner["digest"] = digest(b"nothing")
    with pytest.raises(Invalid, match="before its index"):
        push(rig, json.dumps(whole).encode(), "list")


@pytest.mark.parametrize("name", ["models", "health", "a/b", "A", "", ".x", "x" * 129])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Invalid):
        check_repository(name)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("unavailable.disk", Unavailable), ("conflict.x", Conflict), ("missing.x", Missing),
     ("invalid.gguf", Invalid), ("odd", Invalid)],
)  # fmt: skip
def test_what_a_job_ended_with(code: str, kind: type[FreeholdError]) -> None:
    error = failing(code, "why")
    assert (type(error), error.code, error.message) == (kind, code, "why")
