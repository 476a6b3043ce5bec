"""Cue words: taken from what is seen, leaning to their label, few."""

import random

from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example
from promptmii.train.bank import Guide
from promptmii.train.cues import Cues, words

TOPICS = {"pets": ("dog", "cat", "leash"), "cars": ("engine", "tyre", "brake")}
ROWS = {
    label: [Example(f"the {word} and the {word} again", label) for word in topic for _ in range(8)]
    for label, topic in TOPICS.items()
}
texts = st.lists(
    st.lists(st.sampled_from([*TOPICS["pets"], *TOPICS["cars"], "the", "again"]), max_size=6).map(" ".join), max_size=5
)


@given(texts, texts, st.integers(0, 4))
def test_they_stand_in_the_texts_and_lean_to_their_label(pets: list[str], cars: list[str], most: int) -> None:
    shown = {"pets": pets, "cars": cars}
    found = Cues(ROWS).of(shown, most)
    for label, cues in found.items():
        seen = [word for text in shown[label] for word in words(text)]
        assert set(cues) <= set(seen) & set(TOPICS[label])
        assert len(cues) == len(set(cues)) <= most
        assert sorted(cues, key=seen.index) == list(cues)
        if most >= 3:
            assert set(cues) == set(seen) & set(TOPICS[label])


def test_a_word_of_all_labels_tells_nothing() -> None:
    assert Cues(ROWS).of({"pets": ["the same again"], "cars": ["the same again"]}, 5) == {"pets": (), "cars": ()}


def test_words_that_hardly_come_again_only_fill_a_line_up() -> None:
    rows = {**ROWS, "pets": [*ROWS["pets"], *[Example("a parrot", "pets")] * 2]}
    shown = {"pets": ["a parrot, a dog and a cat"], "cars": ["tyre"]}
    assert Cues(rows).of(shown, 5) == {"pets": ("parrot", "dog", "cat"), "cars": ("tyre",)}
    shown["pets"] = ["a parrot, a dog, a cat, a leash"]
    assert Cues(rows).of(shown, 5)["pets"] == ("dog", "cat", "leash")


def test_a_guide_names_them_beside_or_instead_of_the_description() -> None:
    guide = Guide(
        "Topics of a forum.", {"pets": ("Animals at home.", "Keeping animals at home."), "cars": ("Driving.",)}
    )
    shown, cues = {"pets": "A", "cars": "B"}, {"pets": ("dog", "cat")}
    plain = guide.plain(shown, cues).splitlines()
    assert plain[1:3] == ["A: Animals at home. Typical words: dog, cat.", "B: Driving."]
    assert guide.plain(shown, cues, described=False).splitlines()[:2] == [
        "A: Typical words: dog, cat.",
        "B: anything else.",
    ]

    bare = guide.text(shown, random.Random(0), cues=cues, described=False)
    assert "Animals" not in bare
    assert "Typical words: dog, cat." in bare
    assert "anything else." in bare
