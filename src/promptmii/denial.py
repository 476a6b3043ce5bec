"""Finds the labels that a text asserts or denies: "not spam", "non-toxic", "Spam? No.", "It is ham, not spam"."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

# Words that deny a label in the same clause. The list is generous: a missed denial turns an answer into its opposite,
# while a false one only leaves an answer unparsed.
_DENYING = r"""
    not no non none nothing nobody never neither nor cannot without hardly barely unlikely impossible except excluding
    wrong incorrect false untrue opposite lacks nope minus anti nowhere
    rarely seldom scarcely improbable few\s+would at\s+first other\s+than far\s+from free\s+of
    nicht kein keine keinen keiner keinem keines keinerlei keineswegs nie niemals kaum weder mitnichten
    falsch faux falso falsa onjuist
    ohne nein niet geen noch zonder nee nauwelijks inte ikke ikkje ej nej icke ingen inget knappast
    ne pas ni sans jamais aucun aucune aucunement nullement guère sin nunca jamás tampoco ningún ninguna para\s+nada
    não nem sem nenhum nenhuma né senza nessun nessuna para\s+niente nu nicidecum fără
    не ни нет без вряд едва маловероятно ні немає навряд nie bez ani bynajmniej není nikoli δεν όχι μη καθόλου χωρίς
    nem nincs aligha helyett ei eivät tuskin sijaan değil(?:dir)? yok hayır asla hariç dışında
    không chẳng bukan tidak tanpa mustahil नहीं ना मत बजाय अलावा नाही নয় না নেই இல்லை அல்ல కాదు
    ليس ليست مش غير لا لم لن بدون نیست نه هیچ خیر نہیں לא אינו אין בלי
    nije nisu nėra nuk nahi nahin nahī ekki deyil емес биш არ არა ಅಲ್ಲ അല്ല નથી නොවේ ਨਹੀਂ չէ
"""
_INSTEAD = r"""
    instead\s+of rather\s+than as\s+opposed\s+to unlike contrary\s+to
    statt anstatt anstelle außer in\s+plaats\s+van behalve i\s+stedet\s+for istället\s+för bortsett\s+fr(?:a|ån)
    au\s+lieu\s+de plutôt\s+que sauf loin\s+de? en\s+lugar\s+de en\s+vez\s+de excepto lejos\s+de
    em\s+vez\s+de exceto longe\s+de invece\s+di anziché tranne lontano\s+da altro\s+che în\s+loc\s+de
    вместо кроме замість окрім zamiast oprócz místo kromě αντί εκτός kivéve paitsi
    alih-alih kecuali thay\s+vì ngoại\s+trừ بدلا بدلاً باستثناء عدا وليس ولیس جای جز במקום חוץ ולא
"""
_AUXILIARIES = "is|are|was|were|do|does|did|ca|can|wo|would|could|should|has|have|had|ai|must|need"
_INSTEAD_OF = "|".join(_INSTEAD.split())
_DENYING_WORDS = "|".join([*_DENYING.split(), _INSTEAD_OF])
_FILLERS = (
    "is|it|its|this|that|the|a|an|any|of|so|be|was|really|at|all|quite|exactly|correct|right|answer|labels?|case|here|i"
    "|think|would|say|being|does|do|did|apply|fit|s|course|definitely|absolutely|certainly|clearly|obviously|probably"
)
# Common in explanations ("the payment was rejected"), so these words deny only an adjacent label.
_REJECTING = (
    r"(?:reject|dismiss|discard|doubt|lack)(?:e?s|ed|ing|ful)?|(?:exclud|eliminat)(?:e|es|ed|ing)|den(?:y|ies|ied|ying)"
    r"|rul(?:e|es|ed|ing)\s+out|fail(?:s|ed)?\s+to\s+be|refus(?:e|es|ed)\s+to|absen(?:ce|t)|free\s+from|zero|0\s*%"
    r"|less(?:\s+than)?|more\s+than|least(?:\s+likely)?|disagrees?|mistaken\s+for|confused\s+with"
    r"|(?:hesitate|reluctant|hard|difficult|unfair|stretch)\s+to\s+(?:call|label|say)"
    r"|(?:evidence|argu\w+|decid\w+|speaks?)\s+against"
    r"|devoid|avoid(?:s|ed|ing)?|short\s+of|too\s+\w+\s+to|used\s+to\s+be|else\s+than|little\s+to\s+suggest"
    r"|\A(?:if\s+(?:this|it|that)\s+(?:were|had\s+been)|had\s+(?:this|it|that)\s+been|were\s+(?:this|it|that))|ez\s+da"
)
_UNFIT = (
    r"inaccurate|inappropriate|misleading|too\s+(?:strong|harsh|far|broad|narrow)|an?\s+(?:exaggeration|stretch)"
    r"|absent|missing|lacking|low(?=\W*$)"
)
"""Deny a label only after a verb: "toxic: inappropriate words" gives a reason."""
_REJECTED = (
    r"by\s+mistake|rejected|dismissed|discarded|excluded|eliminated|denied|ruled\s+out|out\s+of\s+the\s+question"
    r"|off\s+the\s+table|(?:the\s+)?least\s+likely|doubtful|(?:a\s+)?mistaken?"
)
_CHANCE = r"(?:probability|likelihood|chance)"
_VERBS = "is|was|are|were|be|can|could|should|must|may|might|would|seems"
NEGATION = re.compile(
    rf"(?<!\w)[וفو]?(?:{_DENYING_WORDS}|n'(?=\w)|n't|(?:{_AUXILIARIES})n['`]?t)(?![^\W_])"
    r"|\b(?:unable|insufficient)\b(?=[^\ue000]*\ue000)"
    rf"|(?<!\w)(?:{_REJECTING})(?=(?:\W*\b(?:{_FILLERS})\b)*[^\w\ue000]*\ue000)"
    rf"|\ue000[^\w\ue000]*(?:\b(?:{_VERBS})\b[^\w\ue000]*)*\b(?:{_REJECTED})\b"
    rf"|\ue000[^\w\ue000]*(?:\b(?:{_VERBS})\b[^\w\ue000]*)+(?:(?:very|quite|rather|far)\s+)?(?:{_UNFIT})\b"
    r"|\b(?:almost|nearly|half|partly|partially)\s+(?=\ue000)"
    r"|\b(?:zero\s+chance|(?:low|small|little|slim|weak|scant)\s+(?:probability|likelihood|chance|risk|evidence))\b"
    r"|\bI(?:\s+(?:must|should|will|always|strive|try|aim|have|need|to))+\s+(?:be|remain|stay)\s+(?=\ue000)"
    r"|\ue000\s+test\w*\W{1,4}negative\b"
    rf"|(?:\ue000\s+{_CHANCE}|{_CHANCE}\s+of\s+\ue000)\W{{1,4}}(?:is\s+)?(?:(?:very|extremely|quite)\s+)?"
    r"(?:(?:low|small|minimal|negligible|none|zero)(?=\W*$)|0(?:\.0\d*)?(?![.,]?\d)|\d(?:\.\d+)?\s*%)"
    r"|\ue000\s*[:=]\s*(?:(?:0|absent|n/a|×|いいえ|否(?!定)|错|誤り)(?![.,]?\w)|low\s*$)"
    r"|\ue000\s+(?:only\s+)?(?:if(?!\s+(?:anything|i|you|forced)\b)|unless)\b|\ue000\s+free(?!\s*\w)"
    r"|(?:排除|除了|缺乏)(?=\W*\ue000)|\ue000\s*+(?:可以|被|とは|と|を|[과와]는?|[을를은는])?\s*(?:排除|以外|除く|異な|程遠|제외|다르|대신)"
    r"|不(?!如)|[没沒]|与其|很难|难以|相反|较少|非(?!常)|[无無](?!疑|论)|未(?!来)|反(?=\ue000)|ない|なく|なし|ません|言えず"
    r"|아니|아닌|아님|아닙|않|없|[비불무미반부](?=\ue000)|ไม่|มิใช่|ບໍ່|មិន|မဟုတ်|[≠¬✗✘✖❌❎🚫☒]|!=|\b(?:any|every)thing\s*$",
    re.IGNORECASE,
)
_AFFIRMING = re.compile(
    r"\b(?:(?:no|not|without|beyond)\s+(?:a\s+|any\s+)?(?:doubt|question)"
    r"|(?:no|none|nothing|no\s+one)\s+(?:but|other\s+than|less\s+than))\b",
    re.IGNORECASE,
)
"""A negation that affirms: "without a doubt", "nothing but spam"."""
_ANSWERS_NO = re.compile(r"\W*(?:no|nope|nein|nee|nej|нет|לא|لا)\W*", re.IGNORECASE)
_ANSWERS_YES = re.compile(
    r"\W*(?:yes|yep|yeah|indeed|correct|right|sure|absolutely|certainly|definitely|i\s+(?:think|believe)\s+so"
    r"|ja|oui|sí|si|да|نعم|כן|是|对|はい|네|예)(?![a-z])",
    re.IGNORECASE,
)
_RETRACTS = re.compile(
    r"\W*(?:(?:no|hm+|oh|but)\W+)*(?:wait(?!\s+(?!no\b|actually\b)\w)"
    r"|(?:actually|correction|sorry)\b|(?:up)?on\s+(?:second|reflection|closer)"
    r"|let\s+me\s+(?:re|correct)|i\s+(?:mean\W*\ue000|meant\b|apologi[sz]e|made\s+an?\s+(?:mistake|error))"
    r"|w?h?oops|apologies|my\s+(?:mistake|bad|apologies)|edit\s*:|"
    r"(?:revised|corrected|updated)\s+(?:answer|label|classification|category))",
    re.IGNORECASE,
)
"""Begins a correction of what was said before: "Wait, no", "Actually", "on second thought"."""
ASKS_FOR_TEXT = re.compile(
    r"\bplease\s+(?:provide|share|give|send|paste|enter)\s+(?:me\s+)?(?:with\s+)?(?:the|your|a|more|some)\s+"
    r"(?:\w+\s+){0,2}(?:texts?|input|message|sentence|review|comment|context)\b",
    re.IGNORECASE,
)
"""In an answer that has not read the text: "Yes, I can help! Please share the text"."""
PARTICLE = re.compile(
    r"\W*(?:not|nor|neither|cannot|without|nicht|kein|geen|niet|ne|pas|ni|sin|sans|не|ни|без|[不非没無无未])\W*",
    re.IGNORECASE,
)
"""Labels that are also negations. In running text they cannot be told apart, so they count only on their own."""
DETERMINER = re.compile(
    r"[ \t]+(?!(?:it|this|that|these|there|the|he|she|they|i|you|we|because|since|as|for|and|or|but|so|not)\b)\w",
    re.IGNORECASE,
)
"""The text after a "no" that is a determiner and not an answer: "no evidence"."""
_ARTICLE = re.compile(
    r"[ \t]+(?!(?:is|was|would|fits|seems|applies|matches|describes|because|since|as|for|with|and|or|but|not)\b)[a-z]"
)
"""The text after an "A" or "I" that may be an article or a pronoun: "A text"; but not "A because"."""
_ENDS = " .,;:!?'\""
_ONLY_FILLERS = re.compile(rf"(?:\W|\b(?:{_FILLERS})\b)*", re.IGNORECASE)
_BORDER = re.compile(
    r"(\n+|\.(?=\s|$)|[!?;。؛؟۔।]|[,(){}\[\]、،]|\s-+\s|(?<=\ue000):(?=[^.\n:;!?,|/]*\ue000(?!\W*:))"
    r"|\b(?:but|because|since|although|sondern|weil|maar|men|mais|mas|sino|pero|ma|а|но|vaan|utan|αλλά"
    r"|hanem|melainkan|mà)\b|而是|(?=而不是|而非)|但|因为|(?<=ではなく)|(?<=아니라)|(?<=아니고)|(?<=않고)"
    r"|\b(?:and|und|et|y|e|en|och|и)\s+(?=(?:\w+\s+)?(?:not|nicht|kein\w*|pas|no|não|non|не|niet|geen|inte|ikke)\b)"
    rf"|(?=\b(?:{_INSTEAD_OF})\b)|(?<=\ue000)(?=[^\w\ue000]*\bnot\W+\ue000)"
    r"|(?<=\ue000)\s+as\s+(?=(?:it|there|the|this)\b))",
    re.IGNORECASE,
)
"""Ends a clause: a line break, punctuation, a conjunction, or the place before "instead of"."""
_FIELD = re.compile(r"\W*(?:\w+\s+){0,2}\w+[*_\"'`]*\s*[:=][^\w\ue000]*[\w\ue000]")
_NEW_FIELD = re.compile(
    r"\W*(?!second|alternative|confidence)(?:\w+\s+){0,2}\w+[*_\"'`]*\s*[:=][^\w\ue000]*\ue000", re.IGNORECASE
)
"""`_FIELD` is a line such as "Sarcasm: none"; `_NEW_FIELD` one that gives a label, such as "Label: spam"."""
_COORDINATOR = r"(?:or|and|nor|und|oder|et|ou|y|o|e|или|и|或|和|または|と|또는|와|과)"
_CONTINUES = re.compile(rf"\W*{_COORDINATOR}\b", re.IGNORECASE)
_SIDE_BY_SIDE = re.compile(rf"[^\w\ue000]*(?:{_COORDINATOR}\b)?[^\w\ue000]*", re.IGNORECASE)


class Mention(NamedTuple):
    """A place in a text that spells a label, or several that are spelled alike."""

    start: int
    end: int
    labels: set[str]


class Claims(NamedTuple):
    """The labels that a text names, denies or doubts."""

    named: set[str]
    denied: set[str]
    unsure: set[str]
    """Named only in a question, before a correction or a denial of something, or by a possible article ("A text")."""
    side_by_side: list[int]
    """Start positions of labels next to another label, as in "a or b"."""


class _Clause(NamedTuple):
    text: str
    border: str
    """The punctuation or word that ends the clause."""
    mentions: list[Mention]
    only_fillers: bool

    @property
    def labels(self) -> set[str]:
        return set[str]().union(*(mention.labels for mention in self.mentions))

    @property
    def asks(self) -> bool:
        return self.border.startswith(("?", "؟"))


def claims(text: str, mentions: Sequence[Mention]) -> Claims:
    """Read a text clause by clause. A negated clause denies the labels in it."""
    clauses = _clauses(text, mentions)
    named, denied = set[str](), set[str]()
    doubted = set[str]()  # "Spam has links, this has not. Ham.": the "not" may be about links
    recent = set[str]()  # labels that a following "no" denies
    asked = False  # the recent labels are in a question that is still open
    negated = False  # this clause denies its labels
    pending = False  # an earlier clause ended in a negation ("It is not: spam"), which denies the next label
    for clause, before in zip(clauses, [None, *clauses], strict=False):
        labels = clause.labels
        if before and before.border.startswith("\n") and _FIELD.match(before.text) and _NEW_FIELD.match(clause.text):
            pending = False  # "Sarcasm: none", then "Label: spam" on the next line
        negated = bool(NEGATION.search(clause.text)) or (negated and bool(_CONTINUES.match(clause.text)))
        if len(clause.mentions) > 1 and not clause.asks:
            negated |= any(NEGATION.fullmatch(label.casefold()) for label in labels)
        if negated or pending:
            doubted |= named if pending and labels and clause.only_fillers else set()
            denied |= labels
        else:
            named |= labels
        # A label may be a word such as "it" or a comma, which does not change the meaning of its clause.
        fillers = {label for label in labels if _ONLY_FILLERS.fullmatch(label) and not label.isupper()}
        if labels - fillers and not (fillers and negated):
            pending = False
        else:
            if negated and clause.only_fillers:
                # "Spam? No." denies the labels before it, but "No, it is not." agrees with "no".
                denied |= {label for label in recent if asked or not NEGATION.search(label)}
            ends_negated = re.search(rf"(?:{NEGATION.pattern})\W*$", clause.text, re.IGNORECASE)
            answers_no = _ANSWERS_NO.fullmatch(clause.text) and clause.border in (*",.!\n،",)
            pending |= bool(ends_negated) and not answers_no
        says_no = bool(labels) and all(NEGATION.fullmatch(label.strip(_ENDS)) for label in labels)
        recent = labels | recent if (asked and says_no) or clause.only_fillers else labels
        asked = clause.asks or (asked and (not labels or says_no))
    denied |= _denied_by_labels(text, mentions)
    moot, unsure = _questioned(text, clauses)
    beside = _side_by_side(text, [m for m in mentions if not m.labels <= denied])
    return Claims(named - moot, denied, unsure | doubted, beside)


def _clauses(text: str, mentions: Sequence[Mention]) -> list[_Clause]:
    marked, position = "", 0
    for mention in mentions:
        marked += text[position : mention.start] + "\ue000"
        position = mention.end
    pieces = _BORDER.split(_AFFIRMING.sub(" ", marked + text[position:]))
    rest = iter(mentions)
    return [
        _Clause(
            clause,
            border,
            [next(rest) for _ in range(clause.count("\ue000"))],
            bool(_ONLY_FILLERS.fullmatch(NEGATION.sub(" ", clause))),
        )
        for clause, border in zip(pieces[::2], [*pieces[1::2], ""], strict=True)
    ]


def _questioned(text: str, clauses: Sequence[_Clause]) -> tuple[set[str], set[str]]:
    """The labels rejected by the answer to a question (b in "a or b? a"; a in "a? b"), and the unsure labels."""
    stated, asked, answered, retracted, question = set[str](), set[str](), set[str](), set[str](), set[str]()
    for clause in clauses:
        labels = clause.labels
        if _RETRACTS.match(clause.text):
            retracted |= stated
        if clause.asks and labels:
            (answered if len(labels) > 1 else asked).update(labels)
            question = labels
        elif labels:
            if clause.only_fillers and not NEGATION.search(clause.text):
                answered |= question
                asked -= question
            sure = set[str]().union(*(m.labels for m in clause.mentions if not _is_article(text, m)))
            asked |= labels - sure
            stated |= sure
            retracted -= sure
            question = set()
        elif _ANSWERS_YES.match(clause.text) and len(question) == 1:
            stated |= question
    return answered - asked - stated, (asked - stated) | retracted


def _is_article(text: str, mention: Mention) -> bool:
    return text[mention.start : mention.end] in ("A", "I") and bool(_ARTICLE.match(text, mention.end))


def _denied_by_labels(text: str, mentions: Sequence[Mention]) -> set[str]:
    """Both of two adjacent labels if the first is a negation: "It is not is not" does not say "is not"."""
    denied = set[str]()
    for first, second in pairwise(mentions):
        adjacent = re.fullmatch(r"[^\w\n\ue000]*", text[first.end : second.start])
        if adjacent and any(map(NEGATION.search, first.labels)):
            denied |= first.labels | second.labels
    return denied


def _side_by_side(text: str, mentions: Sequence[Mention]) -> list[int]:
    starts: list[int] = []
    for first, second in pairwise(mentions):
        gap = text[first.end : second.start]
        adjacent = first.labels != second.labels and _SIDE_BY_SIDE.fullmatch(gap)
        if adjacent and not _is_explanation(gap, text[second.end :]):
            starts += [first.start, second.start]
    return starts


def _is_explanation(gap: str, rest: str) -> bool:
    """True if the second label starts a paragraph or line of text: an explanation of the first, not another answer."""
    new_line = "\n" in gap and not re.search(r"\w", gap)
    return new_line and bool(re.search(r"\n[ \t]*\n", gap) or re.match(rf"[.)]?[ \t]+(?!{_COORDINATOR}\b)\w", rest))
