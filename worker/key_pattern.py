"""How a key of the bucket names its patient, specimen and slide. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.model.errors import UsageError

_FIELDS = ("patient", "specimen", "slide", "ext")
_PLACEHOLDER = re.compile(r"<(\w+|\*)>")


@dataclass(frozen=True, slots=True)
class ScanIdentity:
    """What an upload says about its origin, in NFC."""

    patient: str
    specimen: str
    slide: str


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A compiled key convention."""

    text: str
    expression: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> KeyPattern:
        """Return the pattern of a text like `<patient>/<specimen>/<slide>.<ext>`.

        Raises: UsageError, where the text names no patient, or a placeholder twice or wrongly.
        """
        pieces: list[str] = []
        seen: set[str] = set()
        position = 0
        for match in _PLACEHOLDER.finditer(text):
            name = match[1]
            if name != "*" and (name not in _FIELDS or name in seen):
                raise _bad_pattern(f"<{name}> is unknown or stands there twice")
            pieces += [re.escape(text[position : match.start()]), _piece(name)]
            seen.add(name)
            position = match.end()
        pieces.append(re.escape(text[position:]))
        if "patient" not in seen:
            raise _bad_pattern("it names no <patient>")
        return cls(text=text, expression=re.compile("".join(pieces), re.DOTALL))

    def key_of(self, identity: ScanIdentity, extension: str) -> str:
        """Return the key that this pattern reads as `identity`; `extension` without its dot."""
        values = {
            "patient": identity.patient,
            "specimen": identity.specimen,
            "slide": identity.slide,
            "ext": extension,
            "*": "any",
        }
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.text)


def _piece(name: str) -> str:
    if name == "*":
        return "[^/]*"
    return f"(?P<{name}>[^/.]+)" if name == "ext" else f"(?P<{name}>[^/]+?)"


def _bad_pattern(cause: str) -> UsageError:
    return UsageError(f"the key pattern cannot be used: {cause}", code="key_pattern_invalid")
