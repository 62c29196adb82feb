"""The languages of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from npformer.service.errors import RefusedError

# Those that LibreTranslate has, by ISO 639-1.
_NAMES = {
    "ar": "Arabic",
    "az": "Azerbaijani",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "eo": "Esperanto",
    "es": "Spanish",
    "et": "Estonian",
    "eu": "Basque",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "ga": "Irish",
    "gl": "Galician",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "ms": "Malay",
    "nb": "Norwegian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sq": "Albanian",
    "sv": "Swedish",
    "th": "Thai",
    "tl": "Tagalog",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


@dataclass(frozen=True)
class Languages:
    """The codes of a model's source and target language; empty where they are not known."""

    source: str = ""
    target: str = ""

    def name(self, code: str) -> str:
        """The English name of a language, or its code."""
        return _NAMES.get(code.partition("-")[0], code)

    def check(self, side: str, code: Any) -> None:
        """Raise RefusedError unless `code` is the language of this side, or may be.

        "auto" is the source language, the only one that there is. Where nothing is known of the
        model's languages, any code is believed.
        """
        own = getattr(self, side)
        if not isinstance(code, str) or not code:
            raise RefusedError(422, f"{side} must be the code of a language, as {own or 'en'}")
        said = code.lower().partition("-")[0]
        if own and said != own.partition("-")[0] and not (side == "source" and said == "auto"):
            raise RefusedError(
                422, f"{side} is {own} ({self.name(own)}) here, and not {code!r:.40}"
            )

    def listed(self) -> list[dict[str, Any]]:
        """As LibreTranslate lists languages."""
        found = {self.source: [self.target] if self.target else [], self.target: []}
        return [
            {"code": code, "name": self.name(code), "targets": targets}
            for code, targets in found.items()
            if code
        ]
