"""The registry at size, in a running house: packed, deployed again, damaged, healed, full."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from freehold.store.blobs import measure
from tests.house import House, eventually
from tests.make_gguf import gguf, tweak

Make = Callable[..., House]


def _job(house: House, path: str, body: object = None) -> dict[str, object]:
    job = house.call("POST", path, body).json
    return house.call("GET", f"/api/jobs/{job['id']}?wait=30").json


def _file(house: House, digest: str) -> Path:
    return house.home / "blobs" / "sha256" / digest[:2] / digest


def test_cold_versions_are_packed_and_come_back_when_they_are_deployed(
    own_house: House, weights: Path, tmp_path: Path
) -> None:
    for number in (2, 3):
        other = tweak(weights, tmp_path / f"{number}.gguf", {"general.name": f"tuned {number}"})
        own_house.json("model", "import", str(other), "--name", "smol")
    before = own_house.json("model", "storage")["storage"]
    assert before["logical"] == before["stored"]
    planned = own_house.json("model", "gc", "--plan", "--pack-after", "0")
    assert len(planned["packing"]) == 2  # not the one that is deployed
    done = own_house.json("model", "gc", "--pack-after", "0")
    assert [each["packed"] for each in done["packing"]] == [True, True]
    after = own_house.json("model", "storage")["storage"]
    assert after["packed"] == 2
    assert after["stored"] < 0.45 * after["logical"]  # three versions in the room of one
    assert own_house.chat().status == 200
    own_house.json("model", "verify", "smol:2")
    own_house.cli("deploy", "smol:2", "--as", "two", "--wait")
    assert own_house.chat(model="two").status == 200
    assert own_house.json("model", "storage")["storage"]["packed"] == 1
    assert "intact on" in own_house.cli("model", "show", "smol:3")


def test_damage_is_found_shown_and_healed(own_house: House, weights: Path, tmp_path: Path) -> None:
    digest = own_house.deployment()["digest"]
    path = _file(own_house, digest)
    shutil.copy(path, tmp_path / "copy")  # the file itself is shared with other tests' homes
    (tmp_path / "copy").replace(path)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)[0]
        file.seek(50_000_000)
        file.write(bytes([byte ^ 4]))
    failed = _job(own_house, "/api/registry/verify")
    assert failed["state"] == "failed"
    assert digest in failed["error"]["message"]  # type: ignore[index]
    assert "DAMAGED" in own_house.cli("model", "show", "smol")
    eventually(lambda: own_house.call("GET", "/api/status").json["registry"]["damaged"] == [digest],
               "in the status")  # fmt: skip
    metrics = own_house.call("GET", "/metrics").body.decode()
    assert "freehold_registry_damaged_files" in metrics
    eventually(lambda: own_house.deployment()["state"] not in ("ready", "loading"), "not loaded")
    assert "damaged" in own_house.deployment()["reason"]
    again = own_house.json("model", "import", str(weights), "--name", "smol")
    assert again["version"] == 1
    eventually(lambda: own_house.chat().status == 200, "healed")
    own_house.json("model", "verify", "--all")


def test_quotas_refuse_before_and_during(new_house: Make, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(4_000_000)
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    small.write_bytes(gguf(data=data, tensors=[("weight", [1_000_000], 0, 0)]))
    large.write_bytes(gguf(data=data * 3, tensors=[("weight", [3_000_000], 0, 0)]))
    quotas = '[registry]\nquota = 10_000_000\nquotas = { "principal:ann" = 5_000_000 }\n'
    house = new_house(empty=True, settings=quotas).start()
    ann = house.call(
        "POST", "/api/keys", {"principal": "ann", "role": "operator"}
    ).json["key"]  # fmt: skip

    def bring(source: Path | str, key: str = "admin", **more: str) -> dict[str, object]:
        body = {"source": str(source), "name": Path(str(source)).stem, **more}
        job = house.call("POST", "/api/models", body, key=key).json
        return house.call("GET", f"/api/jobs/{job['id']}?wait=30").json

    refused = bring(large)
    assert refused["error"]["code"] == "quota.bytes"  # type: ignore[index]
    named = bring("smollm2-135m-instruct")  # known beforehand: nothing is fetched
    assert named["error"]["code"] == "quota.bytes"  # type: ignore[index]
    assert bring(small, ann)["state"] == "done"
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf({"general.architecture": "llama", "general.name": "x"},
                           data=data, tensors=[("weight", [1_000_000], 0, 0)]))  # fmt: skip
    assert bring(other, ann)["error"]["code"] == "quota.bytes"  # type: ignore[index]
    digest = measure(small)[0]  # what is known to be here brings nothing
    assert bring(small, ann, sha256=digest)["state"] == "done"
    assert bring(other)["state"] == "done"
    uses = {use["subject"]: use for use in house.json("model", "storage")["uses"]}
    assert uses["principal:ann"]["bytes"] == small.stat().st_size
    assert house.call("GET", "/api/models").json[-1]["versions"] == [1]


def test_who_may_collect(own_house: House) -> None:
    developer = own_house.make_key("developer")
    assert own_house.call("GET", "/api/registry", key=developer).status == 200
    assert own_house.call("POST", "/api/registry/gc", {}, key=developer).status == 403
    assert own_house.call("POST", "/api/registry/verify", key=developer).status == 403
    operator = own_house.make_key("operator")
    assert own_house.call("POST", "/api/registry/gc", {"plan": True}, key=operator).status == 202
    assert own_house.call("POST", "/api/registry/gc", {"pack_after": -1}).status == 400
    assert "give either" in own_house.run_cli("model", "verify").stderr


def test_kill_9_while_packing_loses_nothing(
    own_house: House, weights: Path, tmp_path: Path
) -> None:
    other = tweak(weights, tmp_path / "2.gguf", {"general.name": "tuned"})
    own_house.json("model", "import", str(other), "--name", "smol")
    own_house.call("POST", "/api/registry/gc", {"pack_after": 0})
    time.sleep(0.25)
    own_house.kill_control()
    own_house.start()
    assert _job(own_house, "/api/registry/verify")["state"] == "done"
    assert _job(own_house, "/api/registry/gc", {"pack_after": 0})["state"] == "done"
    assert _job(own_house, "/api/registry/verify")["state"] == "done"
    assert own_house.call("GET", "/api/registry").json["storage"]["packed"] == 1
    assert own_house.chat().status == 200
