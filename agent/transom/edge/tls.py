"""TLS to a broker: a context made of files, which can be changed between connections, and why a handshake fails.

TLS 1.2 or newer, the broker's certificate always verified. Files in; a context, or one line on what is wrong, out.
"""

import socket
import ssl
import weakref
from dataclasses import dataclass
from pathlib import Path

from transom.errors import BrokerError

ALERTS = {  # what the broker says of our side, by OpenSSL's word for it: what it means, and what to do
    "CERTIFICATE_REQUIRED": "the broker wants a client certificate; set broker.tls.cert_file and broker.tls.key_file",
    "CERTIFICATE_REVOKED": "the broker refuses our certificate, which is revoked; get another for broker.tls.cert_file",
    "CERTIFICATE_EXPIRED": "the broker refuses our certificate, which has expired; renew broker.tls.cert_file",
    "UNKNOWN_CA": "the broker refuses our certificate, whose authority it does not know; check broker.tls.cert_file",
    "BAD_CERTIFICATE": "the broker refuses our certificate; check broker.tls.cert_file",
    "CERTIFICATE_UNKNOWN": "the broker refuses our certificate; check broker.tls.cert_file",
    "UNSUPPORTED_CERTIFICATE": "the broker refuses our certificate, which is not for clients; see broker.tls.cert_file",
    "NO_APPLICATION_PROTOCOL": "the broker speaks none of broker.tls.alpn; name the one that it documents",
    "PROTOCOL_VERSION": "the broker speaks no TLS 1.2 or newer, and older is not used; update the broker",
    "UNSUPPORTED_PROTOCOL": "the broker speaks no TLS 1.2 or newer, and older is not used; update the broker",
    "WRONG_VERSION_NUMBER": "TLS fails, for the broker answers without it; is this the TLS port?",
    "RECORD_LAYER_FAILURE": "TLS fails, for the broker answers without it; is this the TLS port?",
    "UNEXPECTED_EOF_WHILE_READING": "TLS fails, for the broker closes the connection; is this the TLS port?",
    "HANDSHAKE_FAILURE": "TLS fails: no cipher or certificate that both sides accept; update the older of the two",
}
VERIFIED = {  # X509_V_ERR_… of OpenSSL's x509_vfy.h: the remedy
    9: "is it of the future? check this machine's clock",
    10: "it has expired: renew it at the broker, or check this machine's clock",
    62: "write broker.host as the certificate has it",
    64: "write broker.host as the certificate has it",
}
STRICT = range(76, 95)  # what Python 3.13 demands of certificates (VERIFY_X509_STRICT)
AUTHORITY = "check broker.tls.ca_file, which must hold the authority that signed it"


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Files and options of TLS. alpn: protocols offered within the handshake, the dearest first."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False
    key_password_file: Path | None = None
    alpn: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, Path]:
        """Those that are configured, by their key."""
        keys = ("ca_file", "cert_file", "key_file", "key_password_file")
        return {key: path for key in keys if (path := getattr(self, key)) is not None}


class Changeable:
    """What paho takes for an SSLContext: each connection gets the one that is current at its beginning."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.current = context
        self.used: ssl.SSLContext | None = None  # by the latest connection
        self._socket: weakref.ref[ssl.SSLSocket] | None = None

    @property
    def check_hostname(self) -> bool:
        return self.current.check_hostname

    def wrap_socket(
        self, sock: socket.socket, server_hostname: str | None = None, *, do_handshake_on_connect: bool = True
    ) -> ssl.SSLSocket:
        # paho would shake hands later, and leave the socket of a failed handshake open.
        del do_handshake_on_connect
        made = self.current.wrap_socket(sock, server_hostname=server_hostname)
        self.used, self._socket = self.current, weakref.ref(made)
        return made

    def broker_until(self) -> float | None:
        """When the certificate that the broker has shown ends, s since 1970; None before there is a connection."""
        sock = self._socket() if self._socket is not None else None
        if sock is None:
            return None
        try:
            shown = sock.getpeercert()
        except (ValueError, OSError):  # no handshake yet, or closed
            return None
        ends = shown.get("notAfter") if shown else None
        return float(ssl.cert_time_to_seconds(ends)) if isinstance(ends, str) else None


def make_context(tls: TlsOptions) -> ssl.SSLContext:
    """Raises BrokerError for files that cannot be used or do not belong together."""
    for key, path in tls.files.items():
        if not path.is_file():
            raise BrokerError(f"broker.tls.{key}", f"{path} is no file", "check the path")
    try:
        context = ssl.create_default_context(cafile=str(tls.ca_file) if tls.ca_file else None)
    except (ssl.SSLError, OSError) as error:
        what = f"{tls.ca_file} cannot be used ({_words(error)})"
        raise BrokerError("broker.tls.ca_file", what, "it must hold certificates as PEM") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = not tls.insecure
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    if tls.cert_file is not None:
        _load_own(context, tls.cert_file, tls)
    return context


def _load_own(context: ssl.SSLContext, cert_file: Path, tls: TlsOptions) -> None:
    key_file = tls.key_file or cert_file
    asked = False

    def password() -> bytes:  # without it OpenSSL would ask on the terminal
        nonlocal asked
        asked = True
        return tls.key_password_file.read_bytes().rstrip(b"\r\n") if tls.key_password_file else b""

    try:
        context.load_cert_chain(cert_file, key_file, password)
    except (ssl.SSLError, OSError, ValueError) as error:
        place = "broker.tls.key_file"
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            what = f"{key_file} is not the key of the certificate in {cert_file}"
            raise BrokerError(place, what, "write both files of one renewal") from None
        if asked and tls.key_password_file is None:
            raise BrokerError(place, f"{key_file} is encrypted", "set broker.tls.key_password_file") from None
        if asked:
            what = f"{tls.key_password_file} does not open {key_file}"
            raise BrokerError("broker.tls.key_password_file", what, "write the key's password into it") from None
        what = f"{cert_file} and {key_file} cannot be used ({_words(error)})"
        raise BrokerError("broker.tls.cert_file", what, "they must be PEM files, a certificate and its key") from None


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def tls_reason(error: ssl.SSLError) -> str:
    """Why there is no connection, in one line for a person who runs a broker."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = VERIFIED.get(error.verify_code, AUTHORITY)
        if error.verify_code in STRICT:
            remedy = "make it anew with the key identifiers and key usage that RFC 5280 asks for"
        return f"the broker's certificate is not accepted ({error.verify_message.rstrip('.')}); {remedy}"
    reason = error.reason or ""
    alert = reason.partition("ALERT_")[2] or reason
    return ALERTS.get(alert) or f"TLS fails ({_words(error)}); is this the TLS port?"
