"""The options of a stream and its channels: key, type, unit, default, meaning, as pydantic models.

Nested tables in, frozen and checked settings out. What each option does is told in core/ beside the spec it becomes.
"""

from datetime import tzinfo
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from transom.core.model import Aggregate
from transom.core.payloads import Format
from transom.core.times import TimeUnit
from transom.settings import arriving, rules
from transom.settings.quantities import (
    Budget,
    Duration,
    DurationOrOff,
    NofM,
    PositiveDuration,
    Rate,
    Size,
    Step,
    Whole,
    Words,
    parse_budget,
)

Line = Annotated[str, AfterValidator(rules.one_line)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ChannelSettings(Section):
    """One channel of a stream, when there is more to say than its name."""

    path: str = Field(
        default="",
        description='Dotted path of the value in the payload, as in "AM2301.Temperature". "": the channel\'s name.',
    )
    unit: str = Field(default="", description='Unit for people, as in "°C"; nothing is converted.')
    resolution: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description='What its values are rounded to with privacy.values = "rounded". 0: to privacy.digits.',
    )
    switch: bool = Field(default=False, description="true: booleans and on/off words are read as 1 and 0.")
    on: Words = Field(default=(), description="Words that mean 1. []: the usual ones (on, true, open, yes, active, …).")
    off: Words = Field(
        default=(),
        description="Words that mean 0. []: the usual ones (off, false, closed, no, clear, …).",
    )


class StreamSettings(Section):
    """Topics that are watched by one model. As many streams as you like, each with a name of its own."""

    topic: Annotated[str, AfterValidator(rules.topic)] = Field(
        examples=["plant/{site}/{device}/{channel}"],
        description="Topics to subscribe to; the one key that every stream needs. A level in braces has a name, "
        "+ is any one level, and # at the end is all levels that follow.",
    )
    series: Words = Field(
        default=(), description="Named levels that make a series, each with windows of its own. []: all but {channel}."
    )
    payload: Format = Field(
        default="auto",
        description='"number": a bare number. "json": one value. "object": a JSON object with many channels. '
        '"array": a JSON array of timed samples. "cbor": any of them in CBOR. "auto": seen from each payload.',
    )
    value: Line | None = Field(
        default=None,
        examples=["data.value"],
        description='Dotted path of the value in the payload. Default: "value", "v" or "val".',
    )
    time: Line | None = Field(
        default=None,
        examples=["data.time"],
        description="Dotted path of the time in the payload. "
        'Default: "time", "timestamp", "ts", "datetime", "date" or "last_seen", else the time of arrival.',
    )
    sequence: Line | None = Field(
        default=None,
        examples=["seq"],
        description="Dotted path of a whole number that a device counts up with each message. "
        "What is missing is counted and reported, what comes again is a duplicate.",
    )
    time_unit: TimeUnit = Field(
        default="auto",
        description='Unit of times: "iso", "s", "ms", "us" or "ns" since 1970, "auto" for ISO 8601 or the unit that '
        'the size shows, "arrival" to use the time of arrival whatever the payload says.',
    )
    timezone: Annotated[str, AfterValidator(rules.timezone)] = Field(
        default="UTC", description='IANA time zone of times that name none, as in "Europe/Berlin".'
    )
    channels: Annotated[dict[str, ChannelSettings], BeforeValidator(rules.channels)] = Field(
        default={},
        examples=[["temperature", "humidity"]],
        description="Channels to read: a list of names here, or a table for each at the end. "
        "Default: every number in the payload is a channel.",
    )
    model: Line = Field(
        default="universal",
        description="Name of a shipped model, or a model file (relative to the folder of this file).",
    )
    model_sha256: Annotated[str, AfterValidator(rules.digest)] | None = Field(
        default=None,
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
        description="SHA-256 of the model file in hexadecimal digits; a file with another one is refused.",
    )
    update_url: Annotated[str, AfterValidator(arriving.https_url)] | None = Field(
        default=None,
        examples=["https://models.example/pump-4.pt"],
        description='Where a newer model is fetched from, once, with models.updates = ["https"]; its signature from '
        "the same address with .minisig at the end of the path. Needs update_sha256.",
    )
    update_sha256: Annotated[str, AfterValidator(rules.digest)] | None = Field(
        default=None,
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
        description="SHA-256 of the file at update_url in hexadecimal digits; any other file is refused.",
    )
    step: Step = Field(
        default=None,
        examples=["1m"],
        description='Length of a step: a duration, or "reading". Default: what the model says.',
    )
    aggregate: Aggregate | None = Field(
        default=None,
        examples=["mean"],
        description='What the readings of a step become: "last", "mean", "min", "max", "sum" or "count". '
        "Default: what the model says.",
    )
    stride: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, examples=[1], description="Steps between two windows. Default: what the model says."
    )
    lateness: Duration = Field(default=0, description="Duration that a step stays open for readings out of order.")
    max_gap: PositiveDuration | None = Field(
        default=None,
        examples=["5m"],
        description="Duration that a value is held; after that it is missing, and a silent series is stale. "
        "Default: what the model says.",
    )
    max_ahead: DurationOrOff = Field(
        default=300_000, description='Duration that a time may be ahead of its arrival before it is invalid, or "off".'
    )
    resync_after: PositiveDuration = Field(
        default=300_000,
        description="Duration of nothing but late readings after which a series starts anew (a clock set back).",
    )
    forget_after: DurationOrOff = Field(
        default=604_800_000, description='Duration of silence after which a series gives its place back, or "off".'
    )
    false_alarms: Budget = Field(
        default=parse_budget("1/week"),
        description="False alarms allowed for each series: N/hour, N/day, N/week, N/month (30 days) or N/year.",
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        examples=[4.0],
        description="Score from which a window is anomalous, in place of false_alarms (never both).",
    )
    raise_after: NofM = Field(
        default=(1, 1), description='Anomalous windows that raise an alert, n of the last m: [2, 3] or "2 of 3".'
    )
    hold_off: Duration = Field(default=0, description="Duration after the end of an alert in which no other is raised.")
    accept_after: PositiveDuration | None = Field(
        default=None,
        examples=["2d"],
        description="Duration after which what goes on since an alert is a new usual; until then what was alerted on "
        "teaches nothing. Default: 1,000 windows, for universal half the time of one allowed false alarm if less.",
    )
    no_data: bool = Field(default=False, description="true: a series that falls silent (see max_gap) raises an alert.")
    max_series: Whole = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Series that are kept; readings of more are counted, not watched.",
    )
    max_payload: Size = Field(
        default=1 << 20,
        description="Size of the largest payload that is read, as in 64KiB or 1MiB.",
    )
    sender: Line | None = Field(
        default=None,
        examples=["{device}"],
        description="What broker.sender_property must say of each message, with the topic's named levels in braces; "
        "others are refused. Proof only where the broker sets the property (docs/senders.md).",
    )
    keys_file: Path | None = Field(
        default=None,
        examples=["device-keys.toml"],
        description="TOML file with the key of each device (the series without its channel): each payload must then "
        "end in its signature (docs/senders.md). Read again at each reload; only its owner may read it.",
    )
    replay_window: DurationOrOff = Field(
        default=86_400_000,
        description='Duration that a signed message may be on its way. "off": its number is no time and counts up.',
    )
    max_rate: Rate = Field(
        default=1000.0,
        description='Messages that one topic may bring while others have to wait: N/s, N/min, N/hour, or "off". More '
        "of a topic that holds more than its share are shed and counted, at QoS 1 too (docs/security.md).",
    )

    @property
    def budget(self) -> float | None:
        """False alarms allowed per millisecond and series; None when `threshold` decides."""
        return self.false_alarms if self.threshold is None else None

    @property
    def zone(self) -> tzinfo:
        """`timezone` as an object."""
        return ZoneInfo(self.timezone)
