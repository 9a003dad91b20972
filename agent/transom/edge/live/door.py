"""Who may see the live page: whoever has the token, where there is one. A request's headers in, yes or no out.

The cookie is a keyed hash of the token: it opens the page and does not give the token away. Neither is ever logged.
"""

import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

log = logging.getLogger(__name__)

COOKIE = "transom"
QUIET = 60.0  # seconds between two warnings of wrong tokens


class Door:
    """refused: wrong tokens so far."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token is not None else None
        self._pass = hmac.new(self._token or b"", b"transom live page", hashlib.sha256).hexdigest()
        self.refused = 0
        self._warned = -QUIET

    def opens(self, headers: Mapping[str, str]) -> bool:
        """Whether the cookie, or `Authorization: Bearer TOKEN`, is right."""
        if self._token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.fits(given.strip())
        try:
            cookie = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return COOKIE in cookie and hmac.compare_digest(cookie[COOKIE].value.encode(), self._pass.encode())

    def fits(self, token: str) -> bool:
        """Whether this is the token; takes as long for any that is not."""
        if self._token is None:
            return True
        right = hmac.compare_digest(token.encode("utf-8", "replace"), self._token)
        if not right:
            self.refused += 1
            if time.monotonic() - self._warned >= QUIET:
                self._warned = time.monotonic()
                log.warning("the live page: a wrong token (%s so far)", self.refused)
        return right

    @property
    def cookie(self) -> str:
        """A Set-Cookie that opens the page until the browser ends."""
        return f"{COOKIE}={self._pass}; Path=/live; HttpOnly; SameSite=Strict"
