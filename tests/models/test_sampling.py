"""Tokens that would keep a loop of greedy text going are found, and text without them has no loops."""

from hypothesis import given
from hypothesis import strategies as st

from promptmii.models.local import LONGEST_PHRASE, TOKEN_REPEATS, loop_tokens

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def test_a_phrase_may_occur_twice_in_a_row_and_a_single_token_eight_times() -> None:
    phrase = [5, 6, 7, 8, 9]
    assert loop_tokens([1, *phrase, *phrase]) == {5}
    assert loop_tokens([1, *phrase, *phrase[:4]]) == set()
    assert loop_tokens([1, 2, 3, 2, 3]) == {2}
    assert loop_tokens([1, 2, 3, 2]) == set()
    assert loop_tokens([1] * 7) == set()
    assert loop_tokens([1] * 8) == {1}


@given(TOKENS)
def test_text_that_avoids_them_has_no_loop(tokens: list[int]) -> None:
    written: list[int] = []
    for token in tokens:
        if token not in loop_tokens(written):
            written.append(token)
    for period in range(1, LONGEST_PHRASE):
        length = (TOKEN_REPEATS if period == 1 else 2 * period) + 1
        for start in range(len(written) - length + 1):
            piece = written[start : start + length]
            assert piece[period:] != piece[:-period] or (period > 1 and len(set(piece)) == 1)
