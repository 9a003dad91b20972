"""Names from topics in ids and in the text of templates: whatever a name is, it is neither code nor a path there."""

import hashlib
import re
import unicodedata

LONGEST_SLUG = 48  # characters of a name in an id
_PLAIN = re.compile(r"[A-Za-z0-9_ /.\-]")  # what may stand in a template's text as it is


def quoted(text: str) -> str:
    """Any text as a string of a template: names come from topics, and a template is code."""
    return "'" + "".join(c if _PLAIN.match(c) else _escape(c) for c in text) + "'"


def _escape(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def slug(text: str, between: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", between, plain).strip(between)[:LONGEST_SLUG].strip(between) or "x"


def digest(text: str, digits: int) -> str:
    return hashlib.blake2s(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
