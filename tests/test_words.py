"""Words of scripts with and without spaces."""

import pytest

from promptmii.words import join_words, split_words, word_share


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop, Café 24!", ["don", "t", "stop", "café", "24"]),
        ("我的iPhone坏了。", ["我", "的", "iphone", "坏", "了"]),
        ("환불 요청", ["환불", "요청"]),
        ("", []),
    ],
)
def test_words_are_split_at_spaces_and_marks_and_around_characters_of_scripts_without_spaces(
    text: str, words: list[str]
) -> None:
    assert split_words(text) == words
    assert split_words(join_words(words)) == words


def test_joined_words_have_spaces_only_where_the_script_has_them() -> None:
    assert join_words(["my", "手", "机", "is", "new"]) == "my 手机 is new"


@pytest.mark.parametrize("piece", ["word", "don't", "-", "24/7", "é", "환불"])
def test_a_piece_in_a_script_with_spaces_is_one_word(piece: str) -> None:
    assert word_share(piece) == 1


def test_scripts_without_spaces_have_two_or_four_characters_a_word() -> None:
    assert list(map(word_share, ("退货", "お金を", "スマホ", "คืนเงิน", "ໜ້າ"))) == [1, 1.5, 0.75, 1.75, 0.75]
