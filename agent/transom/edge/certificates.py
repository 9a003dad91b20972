"""The certificates of a connection: changed files are taken at the next one, and what runs out is told of in time.

Looks at the files in the network thread. Files that do not belong together change nothing but `problems`.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from ssl import SSLContext, cert_time_to_seconds

from transom.edge.tls import Changeable, TlsOptions, make_context
from transom.errors import BrokerError

log = logging.getLogger(__name__)

LOOK = 2.0  # seconds between looks at the files
SETTLE = 1.0  # seconds for which none of them must have changed: they are written one after another
WARN = 21 * 86_400.0  # seconds before its end from which a certificate is told of
RENEW = 3600.0  # seconds before the end of the one in use at which a connection is made anew for the next

Ends = dict[str, float]  # what ends ("certificate", "authority", "broker"): s since 1970


class Certificates:
    """Of one connection. context: for paho, None without TLS."""

    def __init__(
        self,
        tls: TlsOptions | None,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        """clock: s, only goes forward; today: s since 1970. Raises BrokerError for files that cannot be used."""
        self._tls, self._clock, self._today = tls, clock, today
        self.problems: tuple[str, ...] = ()  # one line each; read by other threads
        self.context: Changeable | None = None
        self._looked, self._refused = clock(), ""
        self._settling: float | None = None  # since when the files, as seen, are to be read
        self._told: set[str] = set()
        self._broker: float | None = None
        if tls is not None:
            self._seen, self._taken = _stamps(tls), _digest(tls)
            self.context = Changeable(make_context(tls))
            self._ends: dict[SSLContext, Ends] = {self.context.current: own_ends(tls, self.context.current)}

    def look(self) -> bool:
        """To be called often. True when the connection should be made anew now, for its certificate is about to end
        and there is another."""
        now = self._clock()
        if self._tls is None or self.context is None:
            return False
        if now - self._looked < (LOOK if self._settling is None else SETTLE / 4):
            return False
        self._looked = now
        if (stamps := _stamps(self._tls)) != self._seen:
            self._seen, self._settling = stamps, now
        elif self._settling is not None and now - self._settling >= SETTLE:
            self._settling = None
            self._take(self._tls, self.context)
        self._broker = self.context.broker_until()
        self._tell()
        used = self.context.used
        if used is None or used is self.context.current:
            return False
        return self._ends.get(used, {}).get("certificate", float("inf")) - self._today() < RENEW

    def ends(self) -> Ends:
        """What is known to end when, s since 1970."""
        if self.context is None:
            return {}
        return self._ends[self.context.current] | ({} if self._broker is None else {"broker": self._broker})

    def _take(self, tls: TlsOptions, context: Changeable) -> None:
        digest = _digest(tls)
        if digest == self._taken:  # touched, or put back
            self._refused = ""
            return
        try:
            fresh = make_context(tls)
            ends = own_ends(tls, fresh)
        except BrokerError as error:
            self._refused = f"the new certificates are refused, the old ones go on: {error}{_credential(tls)}"
            return
        self._taken, self._refused = digest, ""
        self._ends = self._ends | {fresh: ends}  # before it is current: another thread may ask
        context.current = fresh
        self._ends = {c: e for c, e in self._ends.items() if c in (fresh, context.used)}
        log.info("the certificates of broker.tls have changed; the next connection uses them")

    def _tell(self) -> None:
        lines = [*([self._refused] if self._refused else []), *expiry(self.ends(), self._today())]
        for line in lines:
            if line not in self._told:
                log.warning("%s", line)
        self._told, self.problems = set(lines), tuple(lines)


def own_ends(tls: TlsOptions, context: SSLContext) -> Ends:
    """When our certificate ends, and the last of the authorities in ca_file. Raises BrokerError."""
    ends: Ends = {}
    if tls.ca_file is not None and (authorities := context.get_ca_certs()):
        ends["authority"] = float(max(cert_time_to_seconds(str(a["notAfter"])) for a in authorities))
    if tls.cert_file is not None:
        from cryptography.x509 import load_pem_x509_certificates  # only here: few agents have one

        try:
            leaf = load_pem_x509_certificates(tls.cert_file.read_bytes())[0]
        except (ValueError, OSError) as error:
            raise BrokerError("broker.tls.cert_file", f"{tls.cert_file}: {error}", "write it as PEM") from None
        ends["certificate"] = leaf.not_valid_after_utc.timestamp()
    return ends


WHO = {
    "certificate": ("broker.tls.cert_file: our certificate", "renew it"),
    "authority": ("broker.tls.ca_file: the authority", "put the next one beside it into the file"),
    "broker": ("broker.host: the broker's certificate", "renew it at the broker"),
}


def expiry(ends: Ends, now: float) -> Iterator[str]:
    """One line for each that ends within 21 days or has ended. now: s since 1970."""
    for key, end in ends.items():
        left, (who, remedy) = end - now, WHO[key]
        day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
        if left <= 0:
            yield f"{who} ended on {day}; {remedy}"
        elif left < WARN:
            days = int(left // 86_400)
            when = f"in {days} day{'s' * (days != 1)}" if days else "within a day"
            yield f"{who} ends {when}, on {day}; {remedy}"


def _credential(tls: TlsOptions) -> str:
    """systemd hands a key over when the service starts, and not again."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    inside = folder and any(Path(folder) in path.parents for path in tls.files.values())
    return "; a systemd credential is read at the start: systemctl restart transom" if inside else ""


def _stamps(tls: TlsOptions) -> list[tuple[int, int, int] | None]:
    found: list[tuple[int, int, int] | None] = []
    for path in tls.files.values():
        try:
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            found.append(None)  # being replaced, or gone
    return found


def _digest(tls: TlsOptions) -> bytes:
    whole = hashlib.sha256()
    for key, path in tls.files.items():
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        whole.update(f"{key} {len(content)} ".encode() + content)
    return whole.digest()
