"""The certificates of the connection to the broker: which end soon, and keys that others can read."""

import time
from collections.abc import Iterator

from transom.edge.certificates import Certificates, expiry
from transom.edge.checkup import Finding
from transom.edge.wire import tls_options
from transom.errors import BrokerError
from transom.settings import Settings

SECRETS = ("key_file", "key_password_file")


def certificate_findings(settings: Settings) -> Iterator[Finding]:
    """Of the files; what cannot be used at all is a finding of the log-in."""
    if not settings.broker.tls.enabled:
        return
    tls = tls_options(settings.broker.tls)
    for key, path in tls.files.items():
        if key in SECRETS and path.is_file() and path.stat().st_mode & 0o077:
            what = f"broker.tls.{key}: other users may read {path}"
            yield Finding(what, "whoever has the key can pose as this agent", f"chmod 600 {path}")
    try:
        ends = Certificates(tls).ends()
    except BrokerError:
        return
    yield from ending(ends)


def ending(ends: dict[str, float]) -> Iterator[Finding]:
    """ends: as of Certificates.ends."""
    for line in expiry(ends, time.time()):
        what, _, mend = line.rpartition("; ")
        yield Finding(what, "from then on there is no connection, and no alert leaves", mend)
