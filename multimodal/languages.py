"""The languages that Whisper's models know, by code and by name, without importing the whisper package."""

from __future__ import annotations

import difflib

from hearth.models.errors import RequestError

# fmt: off
LANGUAGES = {  # in the order of the models' language tokens: a model with fewer knows the first of them
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian", "ko": "korean",
    "fr": "french", "ja": "japanese", "pt": "portuguese", "tr": "turkish", "pl": "polish", "ca": "catalan",
    "nl": "dutch", "ar": "arabic", "sv": "swedish", "it": "italian", "id": "indonesian", "hi": "hindi",
    "fi": "finnish", "vi": "vietnamese", "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay",
    "cs": "czech", "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian",
    "th": "thai", "ur": "urdu", "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian", "la": "latin",
    "mi": "maori", "ml": "malayalam", "cy": "welsh", "sk": "slovak", "te": "telugu", "fa": "persian",
    "lv": "latvian", "bn": "bengali", "sr": "serbian", "az": "azerbaijani", "sl": "slovenian", "kn": "kannada",
    "et": "estonian", "mk": "macedonian", "br": "breton", "eu": "basque", "is": "icelandic", "hy": "armenian",
    "ne": "nepali", "mn": "mongolian", "bs": "bosnian", "kk": "kazakh", "sq": "albanian", "sw": "swahili",
    "gl": "galician", "mr": "marathi", "pa": "punjabi", "si": "sinhala", "km": "khmer", "sn": "shona",
    "yo": "yoruba", "so": "somali", "af": "afrikaans", "oc": "occitan", "ka": "georgian", "be": "belarusian",
    "tg": "tajik", "sd": "sindhi", "gu": "gujarati", "am": "amharic", "yi": "yiddish", "lo": "lao", "uz": "uzbek",
    "fo": "faroese", "ht": "haitian creole", "ps": "pashto", "tk": "turkmen", "nn": "nynorsk", "mt": "maltese",
    "sa": "sanskrit", "lb": "luxembourgish", "my": "myanmar", "bo": "tibetan", "tl": "tagalog", "mg": "malagasy",
    "as": "assamese", "tt": "tatar", "haw": "hawaiian", "ln": "lingala", "ha": "hausa", "ba": "bashkir",
    "jw": "javanese", "su": "sundanese", "yue": "cantonese",
}
ALIASES = {
    "burmese": "my",
    "valencian": "ca",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "pushto": "ps",
    "panjabi": "pa",
    "moldavian": "ro",
    "moldovan": "ro",
    "sinhalese": "si",
    "castilian": "es",
    "mandarin": "zh",
}
# fmt: on


def language_code(wanted: str) -> str:
    """The code of a language given by its code or English name, in any case. Raises RequestError."""
    name = " ".join(wanted.lower().split())
    if name in LANGUAGES:
        return name
    by_name = {english: code for code, english in LANGUAGES.items()} | ALIASES
    if name in by_name:
        return by_name[name]
    close = difflib.get_close_matches(name, [*by_name, *LANGUAGES], n=3, cutoff=0.6)
    listed = " or ".join(f"{one} ({LANGUAGES[by_name.get(one, one)]})" if one in LANGUAGES else one for one in close)
    hint = f"did you mean {listed}?" if close else "give a code like en, de, zh or an English name like German"
    raise RequestError(f"language {wanted!r} is not one that Whisper knows; {hint}")


def language_name(code: str) -> str:
    """“German” for "de"; the code itself if it is unknown."""
    return LANGUAGES.get(code, code).title()
