"""One file from an https address: an address and a place on disk in, a whole file or an error out. No other scheme.

The server's certificate and name are verified. A download that broke off goes on where it ended (RFC 9110, section 14).
"""

import http.client
import logging
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from transom.errors import ModelError, TransomError

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte
REDIRECTS = 5
BLOCK = 64 << 10


class FetchError(TransomError):
    """What may go better the next time."""


class AbsentError(FetchError):
    """The server has no such file, or does not give it."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To https only, and few."""

    max_redirections = REDIRECTS
    max_repeats = 2

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        parts = urlsplit(newurl)
        if parts.scheme.lower() != "https" or "@" in parts.netloc:
            fp.close()
            raise ModelError(shown(req.full_url), f"sends on to {shown(newurl)}", "let it lead to https only")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener(ca_file: Path | None) -> urllib.request.OpenerDirector:
    """Raises ModelError for authorities that cannot be read."""
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ModelError("models.updates_ca_file", f"{ca_file} cannot be used ({error})", "name a PEM file") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    director = urllib.request.OpenerDirector()  # with what is needed and no other scheme: no file, no ftp, no http
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.HTTPSHandler(context=context), _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(), urllib.request.UnknownHandler(),
    ):  # fmt: skip
        director.add_handler(handler)
    return director


def fetch(
    director: urllib.request.OpenerDirector, url: str, target: Path, largest: int, on_size: Callable[[int, int], bool]
) -> None:
    """Writes `target`, or goes on with it. on_size: told of how many bytes are there, and of how many when they are
    known (else 0); False ends it. Raises FetchError for what may pass, ModelError for what will not, OSError of the
    disk."""
    with target.open("ab") as file:
        have = file.tell()
        request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # https only
        if have:
            request.add_header("Range", f"bytes={have}-")
        with _answer(director, request, have=have) as response:
            if response is None:
                return
            if have and response.status != http.client.PARTIAL_CONTENT:  # it sends the whole
                file.truncate(0)
                have = 0
            total = have + int(response.headers.get("Content-Length") or 0)
            if total > largest:
                raise ModelError(shown(url), f"has {total:,} bytes", f"models.updates_largest allows {largest:,}")
            while block := _read(response, url):
                have += len(block)
                if have > largest:
                    raise ModelError(shown(url), f"has more than {largest:,} bytes", "see models.updates_largest")
                file.write(block)
                if not on_size(have, total):
                    raise FetchError(shown(url), "the agent stops", "it goes on at the next start")
            file.flush()
            os.fsync(file.fileno())
            if total > have:
                raise FetchError(shown(url), f"ended after {have:,} of {total:,} bytes", "it goes on there")


class _answer:  # noqa: N801  # reads as a function
    """The response, closed at the end; None where the server says that what we have is all there is."""

    def __init__(self, director: urllib.request.OpenerDirector, request: urllib.request.Request, *, have: int) -> None:
        self._response: Any = None
        url = request.full_url
        try:
            self._response = director.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            kind = AbsentError if error.code in (401, 403, 404, 410) else FetchError
            word = "redirects too often" if 300 <= error.code < 400 else f"answers {error.code}"
            raise kind(
                shown(url), f"{word} ({http.client.responses.get(error.code, '?')})", "check the address"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(shown(url), reason(error), "it is tried again") from None

    def __enter__(self) -> Any:
        return self._response

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()


def _read(response: Any, url: str) -> bytes:
    try:
        return bytes(response.read(BLOCK))
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(shown(url), reason(error), "it goes on there") from None


def signature_url(url: str) -> str:
    """The address of the signature: the path with .minisig at its end."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path}.minisig"))


def reason(error: BaseException) -> str:
    """Why it failed, in plain words."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted ({inner.verify_message}); check models.updates_ca_file"
    if isinstance(inner, OSError) and inner.strerror:
        return str(inner.strerror).lower()
    return str(inner)[:200] or type(inner).__name__


def shown(url: str) -> str:
    """Without what may be secret: name, password and query."""
    parts = urlsplit(url)
    text = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
