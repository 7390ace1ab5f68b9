"""Which models a compression tries beside the one it makes smaller."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from freehold.models.compress.run import _drafts
from freehold.settings import Licences
from tests.make_gguf import gguf
from tests.unit.models.test_quarantine import Shop

FIELDS = {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2"}
BAD = FIELDS | {"tokenizer.chat_template": "{{ ''.__class__ }}"}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path, licences=Licences(ask=("gemma",)))
    yield made
    made.database.close()


def test_what_nobody_may_run_is_no_draft(shop: Shop, tmp_path: Path) -> None:
    found = []
    for name, fields in (
        ("sound", FIELDS),
        ("bad", BAD),
        ("unaccepted", FIELDS | {"general.license": "gemma"}),
    ):
        (tmp_path / name).write_bytes(gguf(fields))
        found.append(shop.bring(tmp_path / name, name))
    task = found[0].manifest.task
    for each in found:
        bigger = msgspec.structs.replace(each.manifest, parameters=10**9, task=task)
        own = msgspec.structs.replace(
            each, manifest=bigger, row=msgspec.structs.replace(each.row, model="own")
        )
        assert list(_drafts(own, shop.workshop)) == ["sound:1"]
