"""Answers that the parser must read, and answers that it must refuse."""

import json
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from promptmii.parse import LabelParser, Match, without_thought

one_line = st.text(min_size=1, max_size=12).map(lambda s: " ".join(s.split())).filter(str.isprintable).filter(bool)
WORDS = """
    spam ham toxic kind sport news A B C++ C# non-toxic not_spam -1 +1 0 1 10 2.5
    体育 财经 スポーツ 독성 กีฬา кот café 👍
"""
words = st.sampled_from(WORDS.split())
word_sets = st.lists(words, min_size=2, max_size=6, unique=True).map(tuple)

WRAPPED = ["{}", " {}\n", '"{}"', "**{}**", "`{}`", "“{}”", "```\n{}\n```", "Label: {}", "The label is **{}**.", "{}."]
EXPLAINED = ["{}\n\nThe text says so.", "Label: {}\nReason: the words in it.", "<think>hm</think>\n\n{}"]
CHOSEN = [  # the first of two labels, whatever is said of the second
    *(
        "{0}\n\n{1} would be second.",
        "Label: {0}\n{1} is close",
        "**Answer**\n{0}\n\n{1} is close",
        "Verdict: {0}\n{1} is close",
        "{0}\n\nInput: another text\nLabel: {1}",
        "Label: {0}\n\nHuman: another text\n\nLabel: {1}",
    ),
    *("{1} is close.\n\nTherefore, the label is **{0}**.", "Options: {0}, {1}\nAnswer: {0}", "{1} or {0}? {0}."),
    *(r"Some would say {1}. \boxed{{{0}}}", r"{1} is close.\n\n\[\n\boxed{{\text{{{0}}}}}\n\]"),
    *(
        "<final_answer>{0}</final_answer>\n{1} is close",
        "- [x] {0}\n- [ ] {1}",
        "{0} and not {1}",
        "{0} au lieu de {1}",
        "Niet {1} maar {0}",
        "与其说是{1}，不如说是{0}",
        "{0}而非{1}",
        "It is {0} not {1}.",
    ),
    *('{{"reason": "{1} is close", "label": "{0}"', "{{'reason': '{1} is close', 'label': '{0}'}}"),
    *('{{"label": "{0}", "possible_labels": ["{0}", "{1}"]}}', '{{"{0}": true, "{1}": false}}'),
]
UNDECIDED = [  # a reader would not say that the answer is the first label, nor the second
    *("{0}\n\nOops, {1}.", "{0}\n\nI made a mistake. It is {1}.", "{0}\n\nRevised answer: {1}", "{0}\nEdit: {1}"),
    *("{0}\n\nWait, actually {1}.", "Label: {0}\n\nCorrection: {1}", "{0}\n\nHmm, on second thought it is {1}."),
    *("Is it {0}?", "Would you call this {0}?", "{0} or {1}?", "Is it {0}? Hard to say.", "هل هو {0}؟"),
    *('{{"label": "{0}"}}\n{{"label": "{1}"}}', "There is no doubt that this is {0}; {1} reads differently."),
]
NEGATED = [
    *("not {}", "Not {}.", "no {}", "non {}", "never {}", "neither {}", "without {}", "≠ {}", "anything but {}"),
    *("It is not {}", "It isn't {}", "It isn’t **{}**", "isnt {}", "This cannot be {}!", "It's not, in fact, {}"),
    *("This is definitely not\n{}", "(not) {}", "not: {}", "{}? No.", "{}? No, it is not.", "{} is wrong", "{}: no"),
    *("Label: not {}", "The answer is not {}", "不是{}", "nicht {}", "n'est pas {}", "no es {}", "не {}"),
    *("{}? Absolutely not.", "I rule out {}", "{} can be ruled out", "There is a lack of {}", "free from {}", "0% {}"),
    *("I doubt that it is {}", "{} is excluded", "Rejected: {}", "nothing {} about it"),
    *('{{"rejected": "{}"}}', '{{"ruled_out": ["{}"]}}', "{} would be a mistake", "it fails to be {}"),
    *("{} free", "devoid of {}", "nowhere near {}", "I'm unable to label this as {}.", "I refuse to say {}.", "{}: 0"),
    *("It isn´t {}", "ليس {}", "وليس {}", "ולא {}", "{} 아님", "<wrong_answer>{}</wrong_answer>", "- [ ] {}"),
    *('{{"label": "eggs", "rejected_labels": ["{}"]}}', "{{'not_label': '{}'}}"),
    *(
        "Rarely {}",
        "It is almost {}",
        "{} would be too strong",
        "{} seems inaccurate",
        "I disagree that it is {}",
        "{}: low",
    ),
    *("A low chance of {}", "Everything but {}", "{} by mistake", "It is {} if it is a joke."),
    *("keineswegs {}", "niemals {}", "{} değildir", "{} নয়", "{} இல்லை", "{} نہیں", "At first it looked like {}."),
    *("au lieu de {}", "вместо {}", "anstatt {}", "排除{}", "{}以外", "{} 대신", "kecuali {}"),
    *("It is hard to call this {}", "contrary to {}", "evidence against {}", "{}: n/a", "I eliminated {}"),
    *("often mistaken for {}", "{} is off the table", "There is scant evidence of {}", "least likely {}"),
    *(
        "nije {}",
        "nėra {}",
        "{} nahi hai",
        "{} емес",
        "{} deyil",
        "{} ಅಲ್ಲ",
        "{} അല്ല",
        "არ არის {}",
    ),
    *('{{"label": "not {}"}}', '{{"not": "{}"}}', '{{"{}": false}}', "<think>{}</think>not {}", "~~{}~~"),
]
HYPHENS = "-\u2010\u2011\u2012\u2013\u2212\uff0d\u00ad _"


@given(st.lists(one_line, min_size=2, unique=True))
def test_an_answer_that_is_a_label_is_that_label(labels: list[str]) -> None:
    parser = LabelParser(tuple(labels))
    assert [parser(label) for label in labels] == [(label, Match.EXACT) for label in labels]


@given(word_sets, st.sampled_from(WRAPPED + EXPLAINED), st.data())
def test_a_label_is_read_in_every_usual_form(labels: tuple[str, ...], form: str, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(labels))
    assume(label != "+1" or "1" not in labels)  # they differ by a sign that means nothing
    assume(label != "1" or "+1" not in labels)
    assert LabelParser(labels)(form.format(label))[0] == label


@given(word_sets, st.text("abcdefgh", min_size=1), st.data())
def test_a_label_is_read_under_any_key_of_json(labels: tuple[str, ...], key: str, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(labels))
    assume(not {"1", "+1"} <= set(labels))
    for value in ({key: label}, [label], {"outer": {key: label}}):
        assert LabelParser(labels)(json.dumps(value))[0] == label
        assert LabelParser(labels)(f"Here it is:\n```json\n{json.dumps(value, indent=1)}\n```")[0] == label


@given(st.permutations(["spam", "toxic", "kind", "sport", "news", "体育", "财经"]), st.sampled_from(CHOSEN))
def test_the_label_that_an_answer_chooses_is_read(labels: list[str], form: str) -> None:
    assert LabelParser(tuple(labels))(form.format(*labels))[0] == labels[0]


@given(st.permutations(["spam", "toxic", "kind", "sport", "news", "体育", "财经"]), st.sampled_from(UNDECIDED))
def test_questions_and_corrections_name_no_label(labels: list[str], form: str) -> None:
    assert LabelParser(tuple(labels))(form.format(*labels))[0] is None


@given(word_sets, st.sampled_from(NEGATED), st.data())
def test_a_label_that_the_answer_denies_is_never_returned(
    labels: tuple[str, ...], form: str, data: st.DataObject
) -> None:
    label = data.draw(st.sampled_from(labels))
    assume((form, label) != ("{}: 0", "0"))  # "0: 0" says 0
    assert LabelParser(labels)(form.format(label, label))[0] != label


DENIALS = [
    *[("entailment", "not entailment", "unknown"), ("is", "is not"), ("is not", "other"), ("not", "is not")],
    *[("spam", "no spam"), ("none", "not none"), ("isn't", "is"), ("non-toxic", "not toxic"), ("never", "always")],
    *[("not relevant", "not applicable"), ("不是", "是"), ("无毒", "有毒"), ("无", "有")],
]


@pytest.mark.parametrize("labels", DENIALS)
@given(data=st.data())
def test_labels_that_are_denials_are_read_and_denied_like_others(labels: tuple[str, ...], data: st.DataObject) -> None:
    parser, label = LabelParser(labels), data.draw(st.sampled_from(labels))
    denied = data.draw(st.sampled_from(NEGATED)).format(label, label)
    assume(denied not in labels)
    assert parser(denied)[0] != label
    assert parser(data.draw(st.sampled_from(WRAPPED + EXPLAINED)).format(label))[0] == label


@given(st.lists(st.sampled_from(["is", "is not", "label", "the label", "answer", "spam", "is spam", "a"]), unique=True))
def test_the_introduction_of_a_label_is_not_a_label(labels: list[str]) -> None:
    assume(len(labels) > 1)
    parser = LabelParser(tuple(labels))
    for head in ("The label is", "Label:", "The correct answer is", "**Answer**:"):
        for form in ("{} **{}**.", '{} "{}"', "{} `{}`\n\nBecause the text says so."):
            assert [parser(form.format(head, label))[0] for label in labels] == labels


ODD = ["it", "is", ",", "'", "no", "none", "not", "and", "-1", "1", "c++", "spam", "体育", "👍", "not.", "x_y"]


def test_a_python_dictionary_with_only_denied_values_names_no_label() -> None:
    assert LabelParser(("'", "it"))("{'not_label': 'it'}") == (None, None)
    assert LabelParser(("spam", "ham"))("{'not_label': 'spam', 'label': 'ham'}")[0] == "ham"


@given(st.lists(st.sampled_from(ODD), min_size=2, max_size=5, unique=True), st.sampled_from(NEGATED), st.data())
def test_a_denied_label_is_not_returned_if_words_of_the_denial_are_labels(
    labels: list[str], form: str, data: st.DataObject
) -> None:
    label = data.draw(st.sampled_from(labels))
    answer = form.format(label, label)
    assume(answer not in labels)
    assert LabelParser(tuple(labels))(answer)[0] != label


@given(st.sampled_from(["toxic", "kind", "spam", "体育"]), st.sampled_from(HYPHENS), st.booleans())
def test_a_negating_prefix_is_recognised_with_every_hyphen(word: str, hyphen: str, known: bool) -> None:
    opposite = f"non-{word}"
    labels = (word, opposite) if known else (word, "other")
    assert LabelParser(labels)(f"non{hyphen}{word}")[0] == (opposite if known else None)


@given(st.integers(1, 99), st.sampled_from("-\u2010\u2011\u2012\u2013\u2212\uff0d\u207b"), st.sampled_from(["", " "]))
def test_a_minus_is_never_lost(number: int, minus: str, space: str) -> None:
    answer = f"{minus}{space}{number}"
    assert LabelParser((str(number), "0"))(answer)[0] is None
    assert LabelParser((str(number), f"-{number}"))(answer)[0] == f"-{number}"
    assert LabelParser((str(number), f"-{number}"))(f"minus {number}")[0] == f"-{number}"


@given(word_sets, st.sampled_from([", ", "/", " or ", " and ", "\n", " & ", "\nor ", "、", " vs. "]), st.data())
def test_two_labels_side_by_side_name_no_label(labels: tuple[str, ...], joint: str, data: st.DataObject) -> None:
    one, other = data.draw(st.lists(st.sampled_from(labels), min_size=2, max_size=2, unique=True))
    assume(f"{one}{joint}{other}" not in labels)
    assert LabelParser(labels)(f"{one}{joint}{other}")[0] is None


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (("positive", "negative"), "positive - the writer is happy", "positive"),
        (("positive", "negative"), "I would call this one positive", "positive"),
        (("positive", "negative"), "It is not positive, it is negative.", "negative"),
        (("positive", "negative"), "positive because it isn't negative", "positive"),
        (("positive", "negative"), "neutral", None),
        (("billing", "login"), "billing: the payment was rejected twice", "billing"),
        (("billing", "login"), "billing, for the card was denied", "billing"),
        (("positive", "negative"), "", None),
        (("yes", "no"), "No, it does not.", "no"),
        (("A", "B"), "A tricky one, but B", None),
        (("A", "B"), "It is a B", "B"),
        (("0", "1"), "0.5", None),
        (("1", "5"), "4/5", None),
        (("A", "A-"), "A−", "A-"),
        (("A", "B"), "A−", None),
        (("c", "c#"), "C#", "c#"),
        (("US", "us"), "Us", None),
        (("card_arrival", "card_lost"), "Card arrival", "card_arrival"),
        (("card_arrival", "card_lost"), r"card\_arrival", "card_arrival"),
        (("card_arrival", "card_lost"), "The intent is card-arrival.", "card_arrival"),
        (("0", "1"), "LABEL_1", "1"),
        (("spam", "ham"), "spam-free", None),
        (("体育", "财经"), "这是体育类新闻", "体育"),
        (("体育", "财经"), "不是体育，是财经。", "财经"),
        (("スポーツ", "経済"), "これはスポーツです。", "スポーツ"),
        (("スポーツ", "経済"), "スポーツではありません", None),
        (("스포츠", "경제"), "스포츠입니다", "스포츠"),
        (("กีฬา", "ข่าว"), "นี่คือกีฬาครับ", "กีฬา"),
        (("alpha", "beta"), '{"label": "alpha", "other": "beta"}', "alpha"),
        (("alpha", "beta"), '{"label": "alpha", "label": "beta"}', None),
        (("alpha", "beta"), "<answer>alpha</answer>", "alpha"),
        (("alpha", "beta"), "[" * 10_000, None),
        (("alpha", "beta"), "alpha [1]", "alpha"),
        (("toxic", "non-toxic"), '{"toxic": true, "non-toxic": true}', None),
        (("toxic", "non-toxic"), '{"toxic": false, "non-toxic": true}', "non-toxic"),
        (("1", "2"), "The answer is 2 [1].", None),
        (("1", "2"), "Answer - 2", "2"),
        (("1", "2"), "2%", None),
        (("1", "2"), "2 000", None),
        (("1", "2"), "٢", "2"),
        (("-1", "1"), "Answer - 1", None),
        ((".5", "1"), "0.5", None),
        (("yes", "no"), "There is no way to know.", None),
        (("yes", "no"), "Yes, there is no doubt.", "yes"),
        (("yes", "no"), "Yes, I can help with that! Please share the text.", None),
        (("positive", "neutral"), "As an AI, I must remain neutral.", None),
        (("A", "C"), "C'est bon", None),
        (("A", "C"), "C'est A", "A"),
        (("A", "B"), "B's the best", "B"),
        (("I", "II"), "I'm sorry.", None),
        (("A", "S"), "U.S.A.", None),
        (("1", "2"), "Step 1: read the text", None),
        (("1", "2"), "I rate this text 2", "2"),
        (("spam", "ham"), "spam needs links; there are none. ham", None),
        (("spam", "ham"), "spam\n###\nText: another\nLabel: ham", "spam"),
        (("spam", "ham"), "spam<|im_end|>\n<|im_start|>user\nham", "spam"),
        (("assistant", "user"), "<|start_header_id|>assistant<|end_header_id|>\n\nuser<|eot_id|>", "user"),
        (("4", "5"), "4 von 5 Sternen", "4"),
        (("evet", "hayır"), "Hayır, değil.", "hayır"),
        (("positive", "neutral"), "más o menos neutral", "neutral"),
        (("positive", "negative"), "negative 👎", "negative"),
        (("spam", "ham"), "spam hariç ham", None),
        (("True", "False"), "half true", None),
        (("긍정", "부정"), "긍정적이지 않고 부정적입니다", "부정"),
        (("肯定的", "否定的"), "否定的とは言えず、肯定的です", "肯定的"),
        (("1", "2"), "more than 1", None),
        (("toxic", "kind"), "toxic: inappropriate words", "toxic"),
        (("toxic", "kind"), "almost certainly toxic", "toxic"),
        (("spam", "ham"), "Label: other\nReason: it reads like spam", None),
        (("spam", "ham"), "Label: spam\nReason: it reads like ham", "spam"),
        (("0", "1"), "Label: other, confidence: 1", None),
        (("0", "1"), '{"confidence": 1}', None),
        (("joy", "anger"), "Joy is missing.", None),
        (("正面", "负面"), "很难说是正面", None),
        (("against", "favor"), "The author seems to disagree with it, so against", "against"),
        (("A", "B"), "A text about sports", None),
        (("A", "B"), "Not A, but B", "B"),
        (("spam", "ham"), "It is nothing but spam", "spam"),
        (("spam", "ham"), "Spam? Yes.", "spam"),
        (("good", "bad", "neutral"), "Neutral: it is neither good nor bad", "neutral"),
        (("toxic", "nontoxic"), "non\u2011toxic", "nontoxic"),
        (("formal", "informal"), "in-formal", "informal"),
        (("formal", "informal"), "It is written in formal language", "formal"),
        (("ham", "sham"), "It's ham", "ham"),
        (("safe", "unsafe"), "un safe", "unsafe"),
        (("PlayMusic", "BookFlight"), "Play Music", "PlayMusic"),
        (("Java", "JavaScript"), "Java Script", "JavaScript"),
        (("R&D", "Sales"), "R&amp;D", "R&D"),
        (("R&D", "Sales"), "R & D", "R&D"),
        (("C", "C#"), "C♯", "C#"),
        (("Maße", "Masse"), "MASSE", None),
        (("Straße", "Haus"), "STRASSE", "Straße"),
        (("👨", "👩"), "👨\u200d⚕️", None),
        (("긍정", "부정"), "긍정이 아니라 부정입니다.", "부정"),
        (("ポジ", "ネガ"), "ポジではなくネガです", "ネガ"),
        (("1 star", "2 stars", "3 stars"), "2 out of 3 stars", None),
        (("1 star", "2 stars", "3 stars"), "2 or 3 stars", None),
        (("1 star", "2 stars", "3 stars"), "The rating is 3 stars", "3 stars"),
        (("1", "2", "3"), "2 out of 3", "2"),
        (("1", "2", "3"), "2 or 3", None),
        (("high", "low"), "Priority: high\nConfidence: low", "high"),
        (("high", "low"), "Confidence: high", "high"),
        (("high", "low"), "The priority is high (confidence: low).", "high"),
        (("spam", "ham"), "With high confidence: spam. It is not ham.", "spam"),
        (("spam", "ham"), "With confidence: spam, because ham would be personal", None),
        (("spam", "ham"), "I have high confidence. Spam, not ham.", "spam"),
        (("probability", "algebra"), "It is about probability, not algebra.", "probability"),
        (("Sci/Tech", "Sports"), "The article is Sci-Tech.", "Sci/Tech"),
        (("N/A", "yes"), "n a", None),
        (("Art", "Art & Design"), "Art and Design", "Art & Design"),
        (("Food and Drink", "R&D"), "food & drink", "Food and Drink"),
        (("Food and Drink", "R&D"), "R and D", "R&D"),
        (("Kunst & Kultur", "Sport"), "Kunst und Kultur", "Kunst & Kultur"),
        (("spam", "ham"), "Primary label: ham\nSecondary label: spam", "ham"),
        (("spam", "ham"), '{"primary_label": "ham", "secondary_label": "spam"}', "ham"),
        (("spam", "ham"), "ham\n\n### Instruction:\nspam", "ham"),
        (("spam", "ham"), "There is zero chance that this is spam.", None),
        (("spam", "ham"), "As opposed to spam, this is ham.", "ham"),
        (("favor", "against"), "The tweet is opposed to abortion: against", "against"),
        (("safe", "unsafe"), "It poses zero risk and is safe.", "safe"),
        (("spam", "ham"), "Looks like spam\nSarcasm: none\nLabel: ham", "ham"),
        (("spam", "ham"), "The answer is not\nLabel: spam", None),
        (("是", "否"), "是的，这是垃圾邮件。", "是"),
        (("是", "否"), "否。这是正常邮件。", "否"),
        (("是", "否"), "是否为垃圾邮件：否", "否"),
        (("是", "否"), "这是正常邮件。", None),
        (("是", "否"), "答案是：“否”", "否"),
        (("是", "否"), "不是是，而是否。", "否"),
        (("是", "否"), "判断结果为是\n理由：包含广告", "是"),
        (("肯定", "否定"), "这条评论是否定的。", "否定"),
        (("是诈骗", "非诈骗"), "我认为是诈骗。", "是诈骗"),
        (("spam", "ham"), "In all likelihood spam, not ham.", "spam"),
        (("spam", "ham"), "Probability: spam 0.9, ham 0.1", None),
        (("spam", "ham"), "Probability: spam\nIt cannot be ham.", "spam"),
        (("spam", "ham"), "Therefore spam.\nSarcasm: none\nSecondary label: ham", "spam"),
        (("high", "low"), "Priority is high (confidence: low).", "high"),
        (("spam", "ham"), "Here are my reasoning steps:\n1. It sells.\nLabel: spam", "spam"),
        (("是垃圾", "非垃圾"), "我认为这是垃圾。", "是垃圾"),
        (("肯定", "否定"), "这段文字的情感是否定的。", "否定"),
        (("إيجابي", "سلبي"), "النص سلبي وليس إيجابي", "سلبي"),
        (("spam", "ham"), "It suggests ham, but asks for money. The label is spam.", "spam"),
        (("spam", "ham"), "The label is spam. The label is ham.", None),
        (("spam", "ham"), "spam</s>\n<|user|>\nlunch?\n<|assistant|>\nham</s>", "spam"),
        (("spam", "ham"), "If this were ham, it would have a name.", None),
        (("spam", "ham"), "Had it been ham, it would have a name.", None),
        (("spam", "ham"), "It used to be spam", None),
        (("spam", "ham"), "There is little to suggest spam.", None),
        (("spam", "ham"), "Spam probability: 5%", None),
        (("spam", "ham"), "Probability of spam: 0.02", None),
        (("spam", "ham"), "The chance of spam is small.", None),
        (("spam", "ham"), "Spam probability: 95%", "spam"),
        (("joy", "anger", "fear"), "joy. Joy probability: 40%", "joy"),
        (("climate", "sports"), "Climate risk: low-lying islands", "climate"),
        (("spam", "ham"), "To see if it is spam, I looked at the links.\n\nLabel: spam", "spam"),
        (("bug", "feature"), "The app had this bug since May. Label: bug", "bug"),
        (("positive", "negative"), "The topic is positive. Parts are negative. The sentiment is mixed.", None),
        (("positive", "negative"), "The review in Hindi is positive.", "positive"),
        (("racing", "football"), "Hamilton is on pole so racing", "racing"),
        (
            ("billing", "delivery"),
            'The customer writes "I need more information about my bill", so this is billing.',
            "billing",
        ),
        (("1", "2", "5"), "The rating went from 5 to 2 after 1 week.", None),
        (("spam", "ham"), "Spam test: negative", None),
        (("1", "4", "5"), "On a scale of 1 to 5, this is a 4.", "4"),
        (("low", "high"), "The risk is low.", "low"),
        (("Hindi", "English"), "The text is in Hindi.", "Hindi"),
    ],
)
def test_answers_in_free_text(labels: tuple[str, ...], answer: str, label: str | None) -> None:
    assert LabelParser(labels)(answer)[0] == label


@pytest.mark.parametrize("answer", ["spam is " * 3000, "spam " * 700, "spam" + "\n#" * 3000, "spam is" + "\n #" * 2000])
def test_a_long_answer_is_read_at_once(answer: str) -> None:
    start = time.process_time()
    assert LabelParser(("spam", "ham"))(answer)[0] == "spam"
    assert time.process_time() - start < 5.0  # used to take up to a minute


@pytest.mark.parametrize(
    "thought",
    [
        *(
            "<think>beta</think>",
            "<thinking>beta</thinking>",
            "<Reasoning>\nbeta\n</Reasoning>",
            "<thought>beta</thought>",
        ),
        *("<analysis>beta</analysis>", "<seed:think>beta</seed:think>", "[THINK]beta[/THINK]", "◁think▷beta◁/think▷"),
        *("beta? No.\n</think>", "<think>\n\n</think>", "<think><think>a</think>beta</think>"),
        *("<|START_THINKING|>beta<|END_THINKING|>", "<|begin_of_thought|>beta<|end_of_thought|>"),
        *("<|think_start|>beta<|think_end|>", "beta<|reasoning_end|>"),
        *("<internal_monologue>beta</internal_monologue>", "<cot>beta</cot>", "< think >beta</ think >"),
        *(
            "<|begin▁of▁thinking|>beta<|end▁of▁thinking|>",
            "[thinking]beta[/thinking]",
            "<unused94>thought\nbeta<unused95>",
        ),
        "<|channel|>analysis<|message|>beta<|end|><|start|>assistant<|channel|>final<|message|>",
        "analysisIt could be beta.assistantfinal",
        *("&lt;think&gt;beta&lt;/think&gt;", "<|inner_prefix|>beta<|inner_suffix|>"),
        "Here is my thought process:\nIt could be beta.\nHere is my response:",
        "Here are my reasoning steps:\nIt could be beta.\n[BEGIN FINAL RESPONSE]",
        '<details type="reasoning" done="true"><summary>Thought for 3 s</summary>\nbeta\n</details>',
    ],
)
def test_thinking_is_not_part_of_the_answer(thought: str) -> None:
    assert without_thought(f"{thought}\nalpha") == "alpha"
    assert LabelParser(("alpha", "beta"))(f"{thought}\n\nalpha\n")[0] == "alpha"


@pytest.mark.parametrize(
    "wrapped",
    ["{}<|im_end|>", "<|begin_of_box|>{}<|end_of_box|>", "{}</s>\n", "<think>2</think>{}<｜end▁of▁sentence｜>"],
)
def test_control_tokens_around_an_answer_are_left_out(wrapped: str) -> None:
    assert without_thought(wrapped.format("1 < 2 |")) == "1 < 2 |"
    assert LabelParser(("1", "2"))(wrapped.format("1"))[0] == "1"


def test_a_tag_of_many_words_is_read_at_once() -> None:
    text = f"<{'a_' * 200} alpha"  # used to double the time with each word
    assert LabelParser(("alpha", "beta"))(text)[0] == "alpha"


@pytest.mark.parametrize(
    "cut",
    ["<think>\nalpha could", "<think>a</think><think>b", "<|channel|>analysis<|message|>alpha", "analysisWe must"],
)
def test_truncated_thinking_is_no_answer(cut: str) -> None:
    assert without_thought(cut) is None
    assert LabelParser(("alpha", "beta"))(cut) == (None, None)
