"""Which language a text may be in, told by its script, and for a few languages in Latin letters by their commonest words.

Rough on purpose: no model to fetch, and a doubtful text passes. It keeps a corpus that should be English free of Chinese, Arabic or
clearly French rows; it does not tell Danish from Norwegian.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

SCRIPTS = {
    "CYRILLIC": ("ru", "uk", "bg", "sr", "mk", "be", "kk", "mn"),
    "ARABIC": ("ar", "fa", "ur", "ps"),
    "CJK": ("zh", "ja"),
    "HIRAGANA": ("ja",),
    "KATAKANA": ("ja",),
    "HANGUL": ("ko",),
    "DEVANAGARI": ("hi", "mr", "ne"),
    "BENGALI": ("bn",),
    "GREEK": ("el",),
    "HEBREW": ("he", "yi"),
    "THAI": ("th",),
    "TAMIL": ("ta",),
    "TELUGU": ("te",),
    "ETHIOPIC": ("am", "ti"),
    "GEORGIAN": ("ka",),
    "ARMENIAN": ("hy",),
}
WORDS = {
    "en": "the and of to is that it was for with this you not are have but they what which from",
    "de": "der die und das ist nicht ein ich zu mit auf den von es sie auch wie dem eine wird",
    "fr": "le la les et est des une pas que dans pour qui sur avec ce il je vous au plus",
    "es": "el los que las una por con para está muy pero como del más no se lo al su es",
    "it": "il che di non per una sono con della mi anche questo ma gli più è come ho nel si",
    "pt": "o que não uma com para os da em por mais como mas foi ele muito você são ao isso",
    "nl": "de het een van en niet dat ik je met op zijn voor maar ook wat er aan heb wel",
    "pl": "nie się na jest że to do jak co ale za przez tak był są dla już od po czy",
    "tr": "bir ve bu çok için ne ama gibi daha var değil mi kadar da ile olarak ben sonra en her",
    "id": "yang dan di ini itu tidak dengan untuk saya ada dari akan bisa juga sudah ke pada karena aku kamu",
}
_LISTS = {language: frozenset(words.split()) for language, words in WORDS.items()}


def written_in(text: str, languages: Iterable[str]) -> bool:
    """Whether a text may be in one of these languages (two letters each). Where nothing speaks for any language, it may."""
    wanted = {language[:2] for language in languages}
    script = _script(text)
    if script in SCRIPTS:
        return bool(wanted & set(SCRIPTS[script]))
    if script == "LATIN" and wanted <= {language for known in SCRIPTS.values() for language in known}:
        return False
    words = re.findall(r"\w+", text.casefold())
    found = Counter({language: sum(word in known for word in words) for language, known in _LISTS.items()})
    (best, most), *_ = found.most_common(1)
    # Two words more than for any wanted language: short texts share too many words to tell.
    return (
        best in wanted
        or most < 3
        or most - max((found[language] for language in wanted), default=0) < 2
        or not wanted & _LISTS.keys()
    )


def _script(text: str) -> str | None:
    """The script of most letters, by the first word of their Unicode names."""
    letters = [character for character in text[:500] if character.isalpha()]
    names = Counter(unicodedata.name(character, "?").split(" ")[0] for character in letters)
    if names["HIRAGANA"] + names["KATAKANA"] > 0.1 * len(letters):
        return "HIRAGANA"
    return names.most_common(1)[0][0] if names else None
