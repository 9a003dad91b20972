"""The options of the agent and its broker, and Settings, the whole: key, type, unit, default, meaning.

Nested tables in, frozen and checked settings out. Reads no file and no variable; sources.py does.
"""

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from transom.settings import arriving, rules
from transom.settings.http import HttpSettings
from transom.settings.quantities import Duration, PositiveDuration, Size, Whole, Words
from transom.settings.streams import Line, Section, StreamSettings

ENV_PREFIX = "TRANSOM_"
ENV_DELIMITER = "__"
TLS_PORT = 8883


def host_id() -> str:
    """The host's name, made safe as a topic level."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname()).strip("-") or "transom"


def state_folder() -> Path:
    """Where state is kept when nothing is configured."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # systemd.exec(5): several are joined by colons
    if given:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "state") / "transom"


class AgentSettings(Section):
    """The agent itself."""

    id: Annotated[str, AfterValidator(rules.topic_level)] = Field(
        default_factory=host_id,
        examples=["gateway-7"],
        description="Name of this agent, one topic level: it publishes under transom/<id>. Default: the host's name.",
    )
    state: Path = Field(
        default_factory=state_folder,
        examples=["/var/lib/transom"],
        description="Folder for what survives a restart. "
        "Default: $STATE_DIRECTORY (set by systemd), else $XDG_STATE_HOME/transom, else ~/.local/state/transom.",
    )
    health_every: PositiveDuration = Field(
        default=30_000, description="Duration between two messages on transom/<id>/health."
    )
    durability: Annotated[Literal["process", "power", "none"], BeforeValidator(rules.lower)] = Field(
        default="process",
        description='What readings and alerts survive: "process" a crash or kill of the agent, "power" also a power '
        'cut (every commit waits for the disk), "none" nothing (no journal is written).',
    )
    commit_every: PositiveDuration = Field(
        default=1_000,
        description="Duration that a few messages wait to be written together, and to be acknowledged. "
        "Many messages, or an alert, are written at once.",
    )
    inbox: Whole = Field(
        default=100_000,
        ge=1,
        description="Messages that may wait for the pipeline. At QoS 1 more are left to the broker; "
        "at QoS 0 the oldest are dropped and counted as shed.",
    )
    outbox: Whole = Field(
        default=10_000, ge=0, description="Predictions that may wait for the broker. Alerts wait on disk, all of them."
    )
    max_age: PositiveDuration = Field(
        default=300_000, description="Duration after which a prediction that waits for the broker is not sent any more."
    )
    remote: Annotated[Words, AfterValidator(rules.remote)] = Field(
        default=(),
        description='Calls that are answered on transom/<id>/request/<call>: "ping", "reload", "mute" (and unmute), '
        '"acknowledge", "explain", "set-budget", "accept" and "rollback" of a newer model. []: none. Whoever may '
        "publish there may call (docs/remote-calls.md).",
    )
    groups: Annotated[Words, AfterValidator(arriving.groups)] = Field(
        default=(),
        description="Groups that this agent belongs to, one topic level each: it takes the models that are sent to "
        "them too (transom push --group NAME).",
    )
    threads: Whole = Field(
        default=1, ge=1, le=256, description="Threads of the models. One is fastest for small models."
    )
    runtime: Annotated[Literal["auto", "torchscript", "onnx"], BeforeValidator(rules.lower)] = Field(
        default="auto",
        description='What runs the models: "torchscript" (.pt), "onnx" (.onnx; the twin beside a .pt that is named; '
        'torch is then never loaded), or "auto": the file that is named, a .pt without torch as its twin.',
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(rules.lower)] = Field(
        default="info", description="Least severity that is logged: debug, info, warning or error."
    )


class TlsSettings(Section):
    """Encryption of the connection to the broker. It is on as soon as one of these keys is set."""

    enabled: bool = Field(
        default=False,
        examples=[False],
        description="true or false. Default: true if another key here is set, else false.",
    )
    ca_file: Path | None = Field(
        default=None,
        examples=["/etc/transom/ca.pem"],
        description="PEM file with the authorities that are trusted. Default: those of the system.",
    )
    cert_file: Path | None = Field(
        default=None, examples=["/etc/transom/client.pem"], description="PEM file with the agent's own certificate."
    )
    key_file: Path | None = Field(
        default=None,
        examples=["/etc/transom/client.key"],
        description="PEM file with the key of that certificate. Default: it stands in cert_file.",
    )
    key_password_file: Path | None = Field(
        default=None,
        examples=["${CREDENTIALS_DIRECTORY}/key-password"],
        description="File that holds the password of an encrypted key and nothing else.",
    )
    alpn: Annotated[Words, AfterValidator(rules.alpn)] = Field(
        default=(),
        description='Protocols to offer in the handshake (ALPN), as a broker that shares port 443 wants it: "mqtt", or '
        '"x-amzn-mqtt-ca" for AWS IoT. []: none.',
    )
    insecure: bool = Field(
        default=False,
        description="true: the broker's name is not verified, so anyone may pose as the broker. For tests only.",
    )

    @model_validator(mode="after")
    def _on_when_configured(self) -> Self:
        chosen = self.insecure or self.alpn or self.model_fields_set - {"insecure", "alpn"}
        if "enabled" not in self.model_fields_set and chosen:
            self.__dict__["enabled"] = True  # frozen for everyone else: a default that depends on other keys
        return self


class BrokerSettings(Section):
    """The MQTT broker."""

    host: Annotated[str, AfterValidator(rules.host)] = Field(
        default="127.0.0.1", description="Name or address of the broker."
    )
    port: Whole = Field(
        default=1883, ge=1, le=65535, examples=[1883], description="TCP port. Default: 1883; 8883 with TLS."
    )
    protocol: Annotated[Literal["auto", "5", "3.1.1"], BeforeValidator(rules.text)] = Field(
        default="auto", description='MQTT version: "5", "3.1.1", or "auto" for 5 and, where that is refused, 3.1.1.'
    )
    transport: Annotated[Literal["tcp", "websockets"], BeforeValidator(rules.text)] = Field(
        default="tcp", description='"tcp", or "websockets" for a broker that is behind a web server.'
    )
    path: Line = Field(default="/mqtt", description="Path at the web server, with websockets.")
    qos: Whole = Field(
        default=1,
        ge=0,
        le=2,
        description="Quality of service of the subscriptions: 0 at most once; 1 at least once, and what comes again is "
        "recognised. 2 is subscribed to as 1: a crash between its handshakes would lose a message.",
    )
    username: Line | None = Field(default=None, examples=["transom"], description="Name to log in with.")
    password: SecretStr | None = Field(
        default=None,
        repr=False,
        examples=["…"],
        description="Password to log in with. Better in password_file, or in the variable TRANSOM_BROKER__PASSWORD: "
        "others can read this file and the list of processes.",
    )
    password_file: Path | None = Field(
        default=None,
        examples=["${CREDENTIALS_DIRECTORY}/broker-password"],
        description="File that holds the password and nothing else. "
        "The example is for systemd with LoadCredential=broker-password:FILE.",
    )
    client_id: Line | None = Field(
        default=None,
        examples=["transom-gateway-7"],
        description="MQTT client id; the broker allows one connection of each. Default: transom-<agent.id>.",
    )
    keepalive: Annotated[PositiveDuration, AfterValidator(rules.keepalive)] = Field(
        default=60_000, description="Duration of silence after which the connection is probed, 1s to 65535s."
    )
    session: Duration = Field(
        default=86_400_000,
        description="Duration that the broker keeps messages for the agent while it is away (MQTT 5; with 3.1.1 the "
        "broker decides). 0: nothing is kept, each connection begins anew.",
    )
    sender_property: Line | None = Field(
        default=None,
        examples=["device"],
        description="Name of the MQTT 5 user property that says who has sent a message, for the streams that ask for "
        "their sender.",
    )
    tls: TlsSettings = Field(default_factory=TlsSettings)

    @model_validator(mode="after")
    def _port_of_tls(self) -> Self:
        if self.tls.enabled and "port" not in self.model_fields_set:
            self.__dict__["port"] = TLS_PORT  # frozen for everyone else: a default that depends on another key
        return self


class HomeAssistantSettings(Section):
    """Devices and entities in Home Assistant, told over the same broker."""

    enabled: bool = Field(
        default=False,
        description="true: every series, and the agent itself, is a device in Home Assistant (docs/home-assistant.md).",
    )
    prefix: Annotated[str, AfterValidator(rules.plain_topic)] = Field(
        default="homeassistant", description="Discovery prefix, as set in Home Assistant's MQTT integration."
    )


Ratio = Annotated[float, Field(gt=0, le=1e6)]


class ModelsSettings(Section):
    """Which model files may run. The shipped ones may always, and one whose digest is the stream's model_sha256."""

    trusted_keys: Annotated[Words, AfterValidator(arriving.public_keys)] = Field(
        default=(),
        description="Public keys whose signature beside a model file (FILE.minisig) is enough, as transom keygen shows "
        "them: one line each, which begins with RW. See docs/security.md.",
    )
    allow_unsigned: bool = Field(
        default=False,
        description="true: model files run for which nobody vouches. Whoever can write such a file, or its folder, "
        "then decides what the agent computes.",
    )
    updates: Annotated[Words, AfterValidator(arriving.origins)] = Field(
        default=(),
        description='Ways by which newer models may arrive: "mqtt" (transom push; needs trusted_keys), "folder" '
        '(updates_folder), "https" (update_url of a stream). []: none (docs/updates.md).',
    )
    updates_folder: Path | None = Field(
        default=None,
        examples=["/var/lib/transom/incoming"],
        description="Folder that is watched for newer models: STREAM/ANYTHING.pt, with its .minisig, put there by a "
        "rename.",
    )
    updates_ca_file: Path | None = Field(
        default=None,
        examples=["/etc/transom/ca.pem"],
        description="PEM file with the authorities that are trusted for update_url. Default: those of the system.",
    )
    updates_largest: Annotated[Size, AfterValidator(arriving.largest)] = Field(
        default=64 << 20, description="Size of the largest model that is taken from elsewhere, at most 128MiB."
    )
    shadow: Duration = Field(
        default=3_600_000,
        description="Duration for which a newer model that has come runs beside the one of its stream, and is compared "
        "with it, before it takes over (docs/updates.md). 0: it takes over at once.",
    )
    trial: Duration = Field(
        default=86_400_000,
        description="Duration after that in which the model before it stands by, and takes over again if the newer one "
        "leaves the bounds below, or the process dies twice. 0: none.",
    )
    max_alarm_ratio: Ratio = Field(
        default=3.0,
        description="Alarms, and time in alert, of a newer model over those of the one before, or over what the budget "
        "allows where that is more.",
    )
    max_error_ratio: Ratio = Field(default=1.5, description="Error of a newer model's forecasts over that before.")
    max_latency_ratio: Ratio = Field(default=5.0, description="Time that a newer model takes over that before.")
    min_agreement: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="Share of the windows in which a newer model must say what the one before says: in alert or not, "
        "or the class.",
    )


class PrivacySettings(Section):
    """What leaves this box (docs/privacy.md), and how long readings stay on its disk."""

    values: Annotated[Literal["full", "rounded", "none"], BeforeValidator(rules.lower)] = Field(
        default="full",
        description='Readings, and expected or forecast values, in what is published: "full", "rounded", or "none": '
        "they are left out. Payloads of dead letters leave with full values and without a key only.",
    )
    digits: Whole = Field(
        default=2,
        ge=1,
        le=7,
        description="Significant digits of what is rounded. A channel's resolution, where it is set, goes before it.",
    )
    series_key_file: Path | None = Field(
        default=None,
        examples=["${CREDENTIALS_DIRECTORY}/series-key"],
        description="File with a secret of 32 or more characters (openssl rand -hex 32). Series are then called by "
        "pseudonyms everywhere outside: `transom pseudonym NAME` computes them. Default: by their names.",
    )
    keep: PositiveDuration | None = Field(
        default=None,
        examples=["1h"],
        description="Duration after which raw readings leave the journal, and with them alerts that the broker has not "
        "taken, which are counted as dropped. Default: until a snapshot holds them, and until it has.",
    )
    keep_alerts: Size | None = Field(
        default=None,
        examples=["16MiB"],
        description="Size of the alerts that may wait in the journal; beyond it the oldest are dropped and counted. "
        "Default: no limit.",
    )


class Settings(BaseSettings):
    """The whole configuration, complete and checked."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        env_ignore_empty=True,  # compose files like to set variables to nothing
        enable_decoding=False,  # lists are read by quantities.parse_list, which refuses with a remedy
    )

    agent: AgentSettings = Field(default_factory=AgentSettings)
    broker: BrokerSettings = Field(default_factory=BrokerSettings)
    homeassistant: HomeAssistantSettings = Field(default_factory=HomeAssistantSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    models: ModelsSettings = Field(default_factory=ModelsSettings)
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)
    streams: dict[str, StreamSettings] = Field(default={}, description="What is watched, by name.")

    _config: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _client_of_agent(self) -> Self:
        if self.broker.client_id is None:
            self.broker.__dict__["client_id"] = f"transom-{self.agent.id}"  # a default that depends on another key
        return self

    @property
    def config(self) -> Path | None:
        """The file that was read, if any."""
        return self._config

    @property
    def folder(self) -> Path:
        """The folder that model files named in the configuration are relative to."""
        return self._config.parent if self._config else Path()

    @property
    def base(self) -> str:
        """The topic under which this agent publishes."""
        return f"transom/{self.agent.id}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: sources.py lays the sources over each other and knows where each value came from."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)
