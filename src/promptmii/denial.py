"""Which labels a text claims and which it denies: "not spam", "non-toxic", "Spam? No.", "It is ham, not spam"."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

# Words that deny a label in the same clause. A missed denial turns an answer into its opposite, while a word too many
# only leaves an answer unparsed, so the list is generous.
_DENYING = r"""
    not no non none nothing nobody never neither nor cannot without hardly barely unlikely impossible except excluding
    wrong incorrect false untrue opposite lacks nope minus unlike anti instead\s+of rather\s+than other\s+than
    far\s+from free\s+of
    nicht kein keine keinen keiner keinem nie weder ohne nein niet geen noch zonder inte ikke ikkje ej icke ingen inget
    ne pas ni sans jamais aucun aucune sin nunca jamás não nem sem né senza nu fără
    не ни нет без ні немає nie bez ani není nikoli δεν όχι μη χωρίς nem nincs ei eivät değil yok
    không chẳng bukan tidak tanpa नहीं ना मत ليس ليست غير لا لم لن بدون نیست نه לא אינו אין בלי
"""
_AUXILIARIES = "is|are|was|were|do|does|did|ca|can|wo|would|could|should|has|have|had|ai|must|need"
_DENYING_WORDS = "|".join(_DENYING.split())
_FILLERS = (
    "is|it|its|this|that|the|a|an|of|so|be|was|really|at|all|quite|exactly|correct|right|answer|label|case|here|i"
    "|think|would|say|does|do|did|apply|fit|s|course|definitely|absolutely|certainly|clearly|obviously|probably"
)
# Words of many explanations ("the payment was rejected"), so they deny only the label that they stand next to.
_REJECTING = (
    r"(?:reject|dismiss|discard|doubt|lack)(?:e?s|ed|ing|ful)?|exclud(?:e|es|ed|ing)|den(?:y|ies|ied|ying)"
    r"|rul(?:e|es|ed|ing)\s+out|(?:fail|refus)(?:e?s|ed)?\s+to\s+be|absence|free\s+from|zero|0\s*%"
)
_REJECTED = r"rejected|dismissed|discarded|excluded|denied|ruled\s+out|doubtful|(?:a\s+)?mistaken?"
NEGATION = re.compile(
    rf"(?<!\w)(?:{_DENYING_WORDS}|n'(?=\w)|(?:{_AUXILIARIES})n['`´]?t)(?![^\W_])"
    rf"|(?<!\w)(?:{_REJECTING})(?=(?:\W*\b(?:{_FILLERS})\b)*[^\w\ue000]*\ue000)"
    rf"|\ue000\W*(?:\b(?:is|was|are|were|be|can|could|should|must|may|would)\b\W*)*\b(?:{_REJECTED})\b"
    r"|[不没沒]|非(?!常)|[无無](?!疑|论)|未(?!来)|反(?=\ue000)|ない|なく|なし|ません"
    r"|아니|아닌|아닙|않|없|[비불무미반부](?=\ue000)|ไม่|มิใช่|ບໍ່|មិន|မဟုတ်|[≠¬✗✘✖❌🚫☒]|!=|\banything\s*$",
    re.IGNORECASE,
)
_ANSWERS_NO = re.compile(r"\W*(?:no|nope|nein|nee|nej|нет)\W*", re.IGNORECASE)
PARTICLE = re.compile(
    r"\W*(?:not|nor|neither|cannot|without|nicht|kein|geen|niet|ne|pas|ni|sin|sans|не|ни|без|[不非没無无未])\W*",
    re.IGNORECASE,
)
"""A label that is such a word cannot be told from the word, so it must stand apart."""
_ENDS = " .,;:!?'\""
_ONLY_FILLERS = re.compile(rf"(?:\W|\b(?:{_FILLERS})\b)*", re.IGNORECASE)
_BORDER = re.compile(
    r"(\n+|[.!?;](?=\s|$)|[。！？；]|[,(){}\[\]，、（）]|\s-+\s"
    r"|\b(?:but|because|since|although|sondern|weil|mais|sino|ma|а)\b|而是|但|因为"
    r"|(?=\b(?:instead of|rather than|unlike)\b))",
    re.IGNORECASE,
)
_COORDINATOR = r"(?:or|and|nor|und|oder|et|ou|y|o|e|или|и|或|和|または|と|또는|와|과)"
_CONTINUES = re.compile(rf"\W*{_COORDINATOR}\b", re.IGNORECASE)
_SIDE_BY_SIDE = re.compile(rf"[^\w\ue000]*(?:{_COORDINATOR}\b)?[^\w\ue000]*", re.IGNORECASE)


class Mention(NamedTuple):
    """A place in a text that spells a label, or several that are spelled alike."""

    start: int
    end: int
    labels: set[str]


class Claims(NamedTuple):
    """What a text says of the labels."""

    named: set[str]
    denied: set[str]
    side_by_side: bool
    """Two labels stand next to each other, as in "a or b"."""


def claims(text: str, mentions: Sequence[Mention]) -> Claims:
    """Read a text clause by clause: a clause that negates denies the labels in it."""
    marked, position = "", 0
    for mention in mentions:
        marked += text[position : mention.start] + "\ue000"
        position = mention.end
    pieces = _BORDER.split(marked + text[position:])
    rest, named, denied = list(mentions), set[str](), set[str]()
    last, asked, negated, reaches = set[str](), False, False, False
    for clause, border in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        own = [rest.pop(0).labels for _ in range(clause.count("\ue000"))]
        labels = set[str]().union(*own)
        negated = bool(NEGATION.search(clause)) or (negated and bool(_CONTINUES.match(clause)))
        negated |= len(own) > 1 and any(NEGATION.fullmatch(label.casefold()) for label in labels)
        filler = bool(_ONLY_FILLERS.fullmatch(NEGATION.sub(" ", clause)))
        (denied if negated or reaches else named).update(labels)
        # A label may be a word such as "it" or a comma, which leaves the clause around it as it was.
        words = {label for label in labels if _ONLY_FILLERS.fullmatch(label)}
        if labels - words and not (words and negated):
            reaches = False
        else:
            if negated and filler:  # "Spam? No." denies what was said before, but "No, it is not." agrees with "no"
                denied |= {label for label in last if asked or not NEGATION.search(label)}
            ends_negated = re.search(rf"(?:{NEGATION.pattern})\W*$", clause, re.IGNORECASE)
            reaches |= bool(ends_negated) and not (_ANSWERS_NO.fullmatch(clause) and border in tuple(",.!\n"))
        says_no = bool(labels) and all(NEGATION.fullmatch(label.strip(_ENDS)) for label in labels)
        last = labels | last if (asked and says_no) or filler else labels
        asked = border.startswith(("?", "？")) or (asked and (not labels or says_no))
    denied |= _denied_by_labels(text, mentions)
    return Claims(named, denied, _side_by_side(text, [m for m in mentions if not m.labels <= denied]))


def _denied_by_labels(text: str, mentions: Sequence[Mention]) -> set[str]:
    """Labels around a gap of nothing, after one that denies: "It is not is not" does not say "is not"."""
    return set[str]().union(
        *(
            one.labels | other.labels
            for one, other in pairwise(mentions)
            if any(map(NEGATION.search, one.labels)) and re.fullmatch(r"[^\w\n\ue000]*", text[one.end : other.start])
        )
    )


def _side_by_side(text: str, mentions: Sequence[Mention]) -> bool:
    return any(
        one.labels != other.labels and _SIDE_BY_SIDE.fullmatch(text[one.end : other.start])
        for one, other in pairwise(mentions)
    )
