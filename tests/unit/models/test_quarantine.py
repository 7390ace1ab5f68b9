"""What the scan finds is kept from everybody until two people let it go; nothing else is kept."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from freehold.builtin.source_folder import Folder
from freehold.control.keys import Keys
from freehold.errors import (
    Conflict,
    DigestMismatch,
    Forbidden,
    Invalid,
    Missing,
    Refused,
    Unavailable,
)
from freehold.models.admission import ASKING_HOLDS
from freehold.models.deploy import plan
from freehold.models.deployment import Deployment
from freehold.models.papers import Papers
from freehold.models.pipeline import Arrival, Workshop, bring_in
from freehold.models.registry import Registry, Version
from freehold.models.release import accept, release
from freehold.models.scan.finding import decode
from freehold.models.signing.trust import Trust
from freehold.settings import Licences, Runtime, Scan, Signing, Sources
from freehold.store.blobs import Blobs
from freehold.store.database import Database
from tests.make_gguf import gguf
from tests.make_safetensors import folder

BAD = {"general.architecture": "llama", "tokenizer.chat_template": "{{ ''.__class__ }}"}


class Shop:
    def __init__(self, place: Path, **settings: object) -> None:
        self.place = place
        self.database = Database(place / "f.db")
        self.policy = settings.pop("licences", Licences())
        assert isinstance(self.policy, Licences)
        blobs = Blobs(place / "blobs")
        self.registry = Registry(self.database, blobs, self.policy)
        self.workshop = Workshop(
            sources={"folder": Folder(Sources())},
            blobs=blobs,
            registry=self.registry,
            scratch=place / "scratch",
            papers=Papers(self.database, self.registry, Trust(Signing())),
            licences=self.policy,
            **settings,  # type: ignore[arg-type]
        )

    def bring(self, source: Path, name: str = "m", by: str = "eve", **more: str) -> Version:
        arrival = Arrival(source=str(source), name=name, **more)  # type: ignore[arg-type]
        return bring_in(arrival, self.workshop, lambda *_: None, 1.0, by)[0]

    def release(self, version: Version, by: str, reason: str = "", now: float = 2.0) -> Version:
        return release(self.database, self.registry, version, reason, now, by)

    def plan(self, model: str = "m") -> str | None:
        return plan(Deployment(name="d", model=model), self.registry, Runtime()).reason

    def blobs(self) -> int:
        return len(list(self.workshop.blobs.digests()))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.database.close()


def _gguf(place: Path, fields: dict[str, object] | None = None, name: str = "a") -> Path:
    path = place / f"{name}.gguf"
    path.write_bytes(
        gguf({"general.architecture": "llama", "general.name": name, **(fields or {})})
    )
    return path


def test_a_finding_makes_a_version_that_nobody_can_use(shop: Shop, tmp_path: Path) -> None:
    version = shop.bring(_gguf(tmp_path, BAD))
    assert version.quarantine is not None
    assert version.quarantine.is_open
    assert [f.rule for f in decode(version.quarantine.findings)] == ["template.code"]
    assert shop.registry.aliases("m") == {}
    for reference in ("m", "m:1"):
        with pytest.raises(Refused, match="in quarantine"):
            shop.registry.resolve(reference)
        assert "in quarantine" in str(shop.plan(reference))
    with pytest.raises(Refused, match="in quarantine"):
        shop.registry.promote("m", "production", 1, 2.0, "eve")
    assert shop.blobs() == 1  # the bytes are kept, to be looked at


def test_importing_it_again_lets_nothing_out(shop: Shop, tmp_path: Path) -> None:
    source = _gguf(tmp_path, BAD)
    shop.bring(source)
    again = shop.bring(source, sha256=shop.registry.version("m", 1).row.digest)
    assert again.quarantine is not None
    assert again.quarantine.is_open
    other = shop.bring(source, name="other")
    assert other.quarantine is not None


def test_a_sound_version_after_it_becomes_production(shop: Shop, tmp_path: Path) -> None:
    shop.bring(_gguf(tmp_path, BAD))
    shop.bring(_gguf(tmp_path, name="sound"))
    assert shop.registry.aliases("m") == {"production": 2}
    assert shop.plan() is None


def test_two_people_release_it(shop: Shop, tmp_path: Path) -> None:
    version = shop.bring(_gguf(tmp_path, BAD), by="eve")
    with pytest.raises(Invalid, match="say why"):
        shop.release(version, "ann")
    asked = shop.release(version, "ann", "we wrote this template")
    assert asked.quarantine is not None
    assert asked.quarantine.is_open
    assert "in quarantine" in str(shop.plan("m:1"))
    with pytest.raises(Forbidden, match="ann has asked"):
        shop.release(version, "ann", "really")
    with pytest.raises(Forbidden, match="eve has brought m:1 in"):
        shop.release(version, "eve")
    released = shop.release(version, "bob")
    assert released.quarantine is not None
    assert released.quarantine.release is not None
    told = released.quarantine.release
    assert (told.asked_by, told.confirmed_by) == ("ann", "bob")
    assert told.reason == "we wrote this template"
    assert shop.plan() is None
    assert shop.registry.aliases("m") == {"production": 1}
    with pytest.raises(Conflict, match="not in quarantine"):
        shop.release(version, "ann", "again")


def test_who_brought_it_in_may_ask_but_never_confirm(shop: Shop, tmp_path: Path) -> None:
    version = shop.bring(_gguf(tmp_path, BAD), by="eve")
    shop.release(version, "eve", "trust me")
    with pytest.raises(Forbidden):
        shop.release(version, "eve")
    assert shop.release(version, "bob").quarantine.is_open is False  # type: ignore[union-attr]


def test_a_key_made_after_it_was_asked_for_confirms_nothing(shop: Shop, tmp_path: Path) -> None:
    version = shop.bring(_gguf(tmp_path, BAD))
    keys = Keys(shop.database, b"pepper")
    before = keys.create("bob", "admin", None, 1.0)
    shop.release(version, "ann", "why", now=2.0)
    after = keys.create("bob", "admin", None, 3.0)
    with pytest.raises(Forbidden, match="made after"):
        release(shop.database, shop.registry, version, "", 4.0, "bob", after.id)
    done = release(shop.database, shop.registry, version, "", 4.0, "bob", before.id)
    assert done.quarantine is not None
    assert not done.quarantine.is_open


def test_nobody_confirms_for_whoever_made_their_key(shop: Shop, tmp_path: Path) -> None:
    version = shop.bring(_gguf(tmp_path, BAD))
    keys = Keys(shop.database, b"pepper")
    keys.create("admin", "admin", None, 1.0)
    for name, by in (("ann", "admin"), ("bob", "admin"), ("zed", "ann"), ("yak", "zed")):
        keys.create(name, "admin", None, 1.0, by=by)
    shop.release(version, "ann", "why")
    for name in ("zed", "yak", "admin"):  # hers, hers by a chain, and who made hers
        with pytest.raises(
            Forbidden, match=r"made the other's key.* must confirm; bob can"
        ) as told:
            shop.release(version, name, "because")
        assert told.value.code == "forbidden.own_key"
    released = shop.release(version, "bob")  # both have theirs from a third
    assert released.quarantine is not None
    assert not released.quarantine.is_open


def test_what_nobody_can_confirm_holds_up_nobody_else(shop: Shop, tmp_path: Path) -> None:
    version = shop.bring(_gguf(tmp_path, BAD))
    keys = Keys(shop.database, b"pepper")
    keys.create("admin", "admin", None, 1.0)
    ann = keys.create("ann", "admin", None, 1.0, by="admin")
    shop.release(version, "admin", "why")
    with pytest.raises(Forbidden, match="make a key for a third person"):
        shop.release(version, "ann")
    keys.create("bob", "admin", None, 1.0, by="admin")
    keys.create("carl", "operator", None, 1.0, by="admin")
    gone = keys.create("dora", "admin", None, 1.0, by="admin")
    keys.revoke(gone.id, 1.5)
    with pytest.raises(
        Forbidden, match=r"nobody can, so ask anew .* m:1 --reason WHY, and bob can"
    ):
        shop.release(version, "ann")
    asked = release(shop.database, shop.registry, version, "I have read it", 3.0, "ann", ann.id)
    assert asked.quarantine is not None
    assert asked.quarantine.is_open
    assert asked.quarantine.release is not None
    assert asked.quarantine.release.asked_by == "ann"
    with pytest.raises(Forbidden, match="bob can"):
        shop.release(version, "admin", now=4.0)
    assert shop.release(version, "bob", now=4.0).quarantine.is_open is False  # type: ignore[union-attr]


def test_an_asking_that_somebody_can_confirm_is_not_replaced(shop: Shop, tmp_path: Path) -> None:
    version = shop.bring(_gguf(tmp_path, BAD))
    keys = Keys(shop.database, b"pepper")
    keys.create("bob", "admin", None, 1.0)
    keys.create("zed", "admin", None, 1.0, by="ann")
    shop.release(version, "ann", "why")
    with pytest.raises(Forbidden, match="bob can"):
        shop.release(version, "zed", "mine instead")


def test_asking_does_not_hold_for_ever(shop: Shop, tmp_path: Path) -> None:
    version = shop.bring(_gguf(tmp_path, BAD))
    shop.release(version, "ann", "why", now=2.0)
    later = shop.release(version, "bob", "it is old", now=3.0 + ASKING_HOLDS)
    assert later.quarantine is not None
    assert later.quarantine.is_open
    assert later.quarantine.release is not None
    assert later.quarantine.release.asked_by == "bob"


def test_a_sound_version_cannot_be_released(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="not in quarantine"):
        shop.release(shop.bring(_gguf(tmp_path)), "ann", "why")


def test_a_pickle_beside_sound_weights_is_quarantined_with_its_bytes(
    shop: Shop, tmp_path: Path
) -> None:
    place = folder(tmp_path / "m", extra__bin=pickle.dumps(print))
    version = shop.bring(place)
    assert version.quarantine is not None
    assert {each.name for each in version.artifacts} >= {"extra.bin", "model.safetensors"}


@pytest.mark.parametrize("data", [b"\x80\x04.", b"PK\x03\x04", b"nonsense", gguf()[:-40]])
def test_what_is_no_model_is_refused_and_not_kept(shop: Shop, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(data)
    with pytest.raises(Invalid):
        shop.bring(tmp_path / "a.gguf")
    place = folder(tmp_path / "m", model__safetensors=data)
    with pytest.raises(Invalid):
        shop.bring(place)
    assert (shop.registry.names(), shop.blobs()) == ([], 0)


def test_a_wrong_file_beside_sound_weights_is_refused_and_not_kept(
    shop: Shop, tmp_path: Path
) -> None:
    with pytest.raises(Invalid, match=r"special_tokens_map.json: .* twice"):
        shop.bring(folder(tmp_path / "m", special_tokens_map__json='{"a": 1, "a": 2}'))
    assert (shop.registry.names(), shop.blobs()) == ([], 0)


def test_nothing_comes_in_while_a_hook_does_not_answer(tmp_path: Path) -> None:
    shop = Shop(tmp_path, scan=Scan(clamd=f"unix:{tmp_path / 'nobody'}"))
    with pytest.raises(Unavailable, match="clamd"):
        shop.bring(_gguf(tmp_path))
    assert (shop.registry.names(), shop.blobs()) == ([], 0)
    shop.database.close()


def test_a_folder_is_pinned_by_the_digest_of_its_list(shop: Shop, tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    version = shop.bring(place)
    assert shop.bring(place, sha256=version.row.digest).row.number == 1
    (place / "README.md").write_text("# more")
    with pytest.raises(DigestMismatch, match="nothing was kept"):
        shop.bring(place, name="other", sha256=version.row.digest)
    assert shop.registry.names() == ["m"]
    assert shop.blobs() == len(version.artifacts)
    assert shop.bring(place).row.number == 2


def test_other_formats_and_adapters_are_not_deployed_alone(shop: Shop, tmp_path: Path) -> None:
    shop.bring(folder(tmp_path / "m"))
    assert "is safetensors, and the engine here runs GGUF" in str(shop.plan())
    lora = {
        "general.type": "adapter", "adapter.type": "lora", "general.base_model.count": 1,
        "general.base_model.0.name": "Base",
    }  # fmt: skip
    with pytest.raises(Invalid, match="an adapter for Base, and its base is not known here"):
        shop.bring(_gguf(tmp_path, lora), name="lora")
    assert shop.registry.names() == ["m"]


def _policy(tmp_path: Path, **rules: object) -> Shop:
    return Shop(tmp_path, licences=Licences(**rules))  # type: ignore[arg-type]


def test_a_denied_licence_is_not_taken_in(tmp_path: Path) -> None:
    shop = _policy(tmp_path, deny=("gemma",))
    source = _gguf(tmp_path, {"general.license": "gemma"})
    with pytest.raises(Refused, match="under the licence gemma"):
        shop.bring(source)
    with pytest.raises(Refused, match="nothing was kept"):
        shop.bring(source, licence="mit")  # saying otherwise does not help
    assert (shop.registry.names(), shop.blobs()) == ([], 0)
    shop.database.close()


def test_a_licence_that_is_denied_later_is_not_deployed(shop: Shop, tmp_path: Path) -> None:
    shop.bring(_gguf(tmp_path, {"general.license": "gemma"}), licence="mit")
    assert shop.plan() is None
    later = Registry(shop.database, shop.workshop.blobs, Licences(deny=("gemma",)))
    reason = plan(Deployment(name="d", model="m"), later, Runtime()).reason
    assert "denies" in str(reason)


def test_saying_another_licence_than_the_card_gets_around_nothing(tmp_path: Path) -> None:
    shop = _policy(tmp_path, ask=("gemma",), deny=("cc-*",))
    place = tmp_path / "m"
    place.mkdir()
    _gguf(place)
    (place / "README.md").write_text("---\nlicense: gemma\n---\n")
    version = shop.bring(place, licence="mit")
    assert version.row.licence == "mit"
    assert "freehold model accept m" in str(shop.plan())
    (place / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.raises(Refused, match=r"under the licence mit, cc-by-nc-4\.0"):
        shop.bring(place, licence="mit")
    shop.database.close()


@pytest.mark.parametrize(
    "head",
    ["license: [mit, gemma]", "license:\n- mit\n- gemma", "license: gemma\nlicense_name: mit",
     "license: mit"],
)  # fmt: skip
def test_a_card_that_says_two_things_gets_around_nothing(tmp_path: Path, head: str) -> None:
    shop = _policy(tmp_path, deny=("gemma",))
    place = folder(tmp_path / "m")
    (place / "README.md").write_text(f"---\n{head}\n---\n")
    (place / "LICENSE").write_text("Gemma Terms of Use")
    with pytest.raises(Refused, match="gemma"):
        shop.bring(place)
    if "gemma" in head:
        (place / "LICENSE").unlink()
        with pytest.raises(Refused, match="gemma"):
            shop.bring(place)
    shop.database.close()


def test_saying_a_licence_takes_back_neither_the_files_nor_the_sources(tmp_path: Path) -> None:
    shop = _policy(tmp_path, ask=("gemma", "llama3"))
    place = tmp_path / "m"
    place.mkdir()
    _gguf(place, {"general.license": "apache-2.0", "general.license.name": "llama3"})
    (place / "README.md").write_text("---\nlicense: gemma\n---\n")
    version = shop.bring(place, licence="apache-2.0")
    assert version.manifest.licence == "(apache-2.0 AND llama3) AND gemma"
    given = accept(shop.database, shop.registry, "m", shop.policy, 5.0, "ann")
    assert [each.licence for each in given] == ["gemma", "llama3"]
    assert shop.plan() is None
    shop.database.close()


def test_a_licence_that_asks_is_accepted_once(tmp_path: Path) -> None:
    shop = _policy(tmp_path, ask=("gemma",), unknown="ask")
    shop.bring(_gguf(tmp_path, {"general.license": "gemma"}))
    assert "freehold model accept m" in str(shop.plan())
    given = accept(shop.database, shop.registry, "m", shop.policy, 5.0, "ann")
    assert [(each.licence, each.accepted_by) for each in given] == [("gemma", "ann")]
    assert shop.plan() is None
    shop.bring(_gguf(tmp_path, {"general.license": "gemma"}, name="next"))
    assert shop.plan("m:2") is None
    shop.bring(_gguf(tmp_path, name="untold"), name="n")  # another model, another yes
    assert "freehold model accept n" in str(shop.plan("n"))
    with pytest.raises(Refused, match="unknown"):
        shop.registry.resolve("n")
    shop.database.close()


def test_there_is_nothing_to_accept_where_nothing_asks(shop: Shop, tmp_path: Path) -> None:
    shop.bring(_gguf(tmp_path))
    with pytest.raises(Conflict, match="no licence of m is one that must be accepted"):
        accept(shop.database, shop.registry, "m", Licences(), 5.0, "ann")


def test_what_a_new_rule_finds_takes_a_version_out_of_use(shop: Shop, tmp_path: Path) -> None:
    pytest.importorskip("yara_x")
    told: list[tuple[int, str]] = []
    shop.registry.isolated = lambda version, by: told.append((version.row.number, by))
    source = _gguf(tmp_path, {"general.description": "sleeper"})
    assert shop.bring(source).quarantine is None
    assert shop.plan() is None
    again = _stricter(shop, tmp_path, "one").bring(source, by="ann")
    assert again.row.number == 1
    assert again.quarantine is not None
    assert again.quarantine.is_open
    assert "in quarantine" in (shop.plan() or "")
    assert shop.registry.aliases("m") == {"production": 1}  # as it was, should it be released
    assert told == [(1, "ann")]


def test_a_release_is_for_what_was_found_then(shop: Shop, tmp_path: Path) -> None:
    pytest.importorskip("yara_x")
    source = _gguf(tmp_path, {**BAD, "general.description": "sleeper"})
    version = shop.bring(source)
    shop.release(version, "ann", "ours")
    assert shop.plan() is not None
    shop.release(version, "bob")
    assert shop.plan() is None
    shop.bring(source)  # the same finding again: two people have said what they think of it
    assert shop.plan() is None
    held = _stricter(shop, tmp_path, "one").bring(source).quarantine
    assert held is not None
    assert held.is_open
    assert held.release is None  # nobody has asked about this one
    assert {finding.rule for finding in decode(held.findings)} == {"template.code", "yara.match"}
    assert shop.plan() is not None
    shop.release(shop.registry.version("m", 1), "ann", "both are ours")
    assert shop.plan() is not None
    shop.release(shop.registry.version("m", 1), "bob")
    assert shop.plan() is None


def _stricter(shop: Shop, place: Path, name: str) -> Shop:
    """Return the shop with one rule more."""
    rules = place / f"{name}.yar"
    rules.write_text('rule r { strings: $a = "sleeper" condition: $a }')
    shop.workshop = msgspec.structs.replace(shop.workshop, scan=Scan(yara=(str(rules),)))
    return shop


def test_what_lies_beside_a_model_is_looked_at_and_named(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    place = tmp_path / "tiny"
    (place / "notes" / ".git").mkdir(parents=True)
    (place / "tiny.gguf").write_bytes(gguf())
    for name in ("README.md", "LICENSE", "tiny.gguf.sig", "model.sig", "a.png", "notes/.git/x"):
        (place / name).write_bytes(b"plain")
    quiet = shop.bring(place, "quiet")
    assert (quiet.quarantine, shop.registry.left_out("quiet", 1)) == (None, ())
    (place / "notes" / "more.txt").write_text("plain")
    named = shop.bring(place, "named")
    assert (named.quarantine, shop.registry.left_out("named", 1)) == (None, ("notes/more.txt",))
    (place / "evil.txt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    (place / "load.py").write_text("import os")
    held = shop.bring(place, "held").quarantine
    assert held is not None
    assert {(each.file, each.rule) for each in decode(held.findings)} == {
        ("evil.txt", "executes.pickle"), ("load.py", "executes.program"),
    }  # fmt: skip
    assert shop.registry.left_out("held", 1) == ("evil.txt", "load.py", "notes/more.txt")
    # Whoever puts something beside a model that is in use stops nothing by it.
    assert shop.bring(place, "quiet").quarantine is None


def test_a_fetch_that_brings_nothing_leaves_no_folder(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with pytest.raises(Missing):
        shop.bring(tmp_path / "none.gguf")
    assert list(shop.workshop.scratch.iterdir()) == []
