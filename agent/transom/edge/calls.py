"""What a remote call changes: requests that are well formed in, calls for the pipeline and what to answer out.

Looks into the pipeline and changes nothing: that is for the turn that the call becomes part of. Raises RequestError for
what is not there.
"""

import logging
from typing import Any

from transom.core.attention import Call
from transom.core.pipeline import Pipeline
from transom.core.stream import Stream
from transom.dialects.plain import rfc3339
from transom.edge.requests import Acknowledge, Mute, Request, RequestError, SetBudget, Unmute
from transom.settings.quantities import format_budget, parse_budget, parse_positive_duration

log = logging.getLogger(__name__)

LONGEST_MUTE = 366 * 86_400_000  # ms

Changed = tuple[Call, dict[str, Any]]


def change(request: Request, at: int, pipeline: Pipeline) -> Changed | None:
    """at: µs since 1970, when the request came. None for a request that changes nothing."""
    match request:
        case Mute():
            return _mute(request, at, pipeline)
        case Unmute():
            stream, series, _ = _place(request, pipeline)
            log.info("no longer muted: %s/%s", stream.spec.name, series)
            return Call("unmute", stream.spec.name, series, at), {"stream": stream.spec.name, "series": series}
        case Acknowledge():
            return _acknowledge(request, at, pipeline)
        case SetBudget():
            return _set_budget(request, at, pipeline)
    return None


def _mute(request: Mute, at: int, pipeline: Pipeline) -> Changed:
    stream, series, kind = _place(request, pipeline)
    try:
        duration = parse_positive_duration(request.duration)
    except ValueError as error:
        raise RequestError("duration", *map(str, error.args)) from None
    if duration > LONGEST_MUTE:
        raise RequestError("duration", f"{request.duration!r} is longer than a year", "mute it for a shorter time")
    until = at + 1000 * duration
    log.info("muted until %s: %s/%s", rfc3339(until), stream.spec.name, series)
    body = {"stream": stream.spec.name, "series": series, "until": rfc3339(until)}
    body |= {"alert": request.alert} if request.alert else {}
    return Call("mute", stream.spec.name, series, at, until, request.alert or "", kind), body


def _acknowledge(request: Acknowledge, at: int, pipeline: Pipeline) -> Changed:
    stream, series, kind = _alert(request.alert, pipeline)
    log.info("alert %s acknowledged by %r: %s/%s", request.alert, request.by, stream.spec.name, series)
    body = {
        "alert": request.alert, "stream": stream.spec.name, "series": series, "by": request.by,
        "time": rfc3339(at),
    }  # fmt: skip
    return Call("acknowledge", stream.spec.name, series, at, 0, request.alert, kind, request.by), body


def _set_budget(request: SetBudget, at: int, pipeline: Pipeline) -> Changed:
    stream = stream_of(request.stream, pipeline)
    if stream.model.manifest.task != "anomaly":
        raise RequestError("stream", f"{request.stream} raises no alerts", "choose one whose model is a detector")
    if stream.spec.budget is None:
        raise RequestError("stream", f"threshold decides in {request.stream}", "change it in the configuration")
    try:
        budget = parse_budget(request.false_alarms)
    except ValueError as error:
        raise RequestError("false_alarms", *map(str, error.args)) from None
    log.info("streams.%s: false_alarms %s until a restart or reload", request.stream, format_budget(budget))
    body = {
        "stream": request.stream, "false_alarms": format_budget(budget),
        "before": format_budget(stream.judge.budget or 0.0), "until": "restart or reload",
    }  # fmt: skip
    return Call("set-budget", request.stream, at=at, budget=budget), body


def _place(request: Unmute, pipeline: Pipeline) -> tuple[Stream, str, str]:
    """Stream, series and, where the request names an alert, its kind. Raises RequestError."""
    if request.alert is not None:
        if request.stream or request.series:
            raise RequestError("alert", "names its series already", "leave stream and series out")
        return _alert(request.alert, pipeline)
    if not request.stream or not request.series:
        raise RequestError("series", "is missing", "give stream and series, or the id of an alert as alert")
    stream = stream_of(request.stream, pipeline)
    series_of(stream, request.series)
    return stream, request.series, ""


def _alert(alert: str, pipeline: Pipeline) -> tuple[Stream, str, str]:
    for stream in pipeline.streams.values():
        found = stream.judge.standing.find(alert)
        if found is not None:
            return stream, stream.intake.names[found[0]], found[1]
    raise RequestError("alert", f"{alert!r} is not up", "an alert that has ended needs nothing more")


def stream_of(name: str, pipeline: Pipeline) -> Stream:
    stream = pipeline.streams.get(name)
    if stream is None:
        known = ", ".join(sorted(pipeline.streams)[:10])
        raise RequestError("stream", f"there is no {name!r}", f"there are {known}")
    return stream


def series_of(stream: Stream, name: str) -> int:
    series = stream.intake.find(name)
    if series is None:
        some = ", ".join(sorted(n for n in stream.intake.names if n)[:5])
        raise RequestError("series", f"{stream.spec.name} has no {name!r}", f"it has {some}" if some else
                           "it has heard of none yet")  # fmt: skip
    return series
