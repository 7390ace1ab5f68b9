"""Texts to learn from and to be judged by."""

from pathlib import Path

import pytest

from freehold.errors import Invalid
from freehold.models.compress.calibration import MOST_BYTES, built_in, parse, read

PASSAGE = "The ferry runs every twenty minutes except on the first Sunday of the month. "
GOOD = "\n\n".join(f"{n}: {PASSAGE * 4}" for n in range(12)).encode()


def test_our_own_texts_never_share_a_passage_and_speak_many_languages() -> None:
    texts = built_in()
    assert not set(texts.learn) & set(texts.judge)
    assert len(texts.learn) > 40
    assert len(texts.judge) > 40
    every = "".join((*texts.learn, *texts.judge))
    for sample in ("ü", "ç", "ř", "ő", "ș", "ж", "ї", "θ", "ğ", "ع", "پ", "ש", "ह", "ন",
                   "த", "త", "ก", "ư", "的", "の", "한", "def ", "SELECT", '{"'):  # fmt: skip
        assert sample in every, sample


def test_a_tenants_text_is_split_without_overlap() -> None:
    texts = parse(GOOD, "mine.txt")
    assert len(texts.learn) == 8
    assert len(texts.judge) == 4
    assert not set(texts.learn) & set(texts.judge)
    assert parse(GOOD + b"\n\n" + GOOD, "twice").learn == texts.learn


def test_a_text_of_one_block_is_cut() -> None:
    texts = parse((PASSAGE * 200).encode(), "block.txt")
    assert len(texts.judge) >= 2
    assert not set(texts.learn) & set(texts.judge)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b" \n\n ", "empty"),
        (GOOD + b"\0", "zero bytes"),
        (GOOD + b"\xff", f"byte {len(GOOD)}"),
        (GOOD + b"\x1b[1m", "control character 27"),
        (b"too short\n\nby far\n\nreally", "too little"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(data, "bad.txt")
    assert why in caught.value.message
    assert caught.value.param == "calibration"


def test_files_that_are_huge_missing_or_no_files_are_refused(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    for path, why in ((huge, "MiB"), (tmp_path / "none", "cannot be read"), (tmp_path, "no")):
        with pytest.raises(Invalid) as caught:
            read(path)
        assert why in caught.value.message
