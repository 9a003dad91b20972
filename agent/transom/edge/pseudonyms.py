"""Remote calls where series have pseudonyms: what a caller names is looked up, what is answered is renamed.

Requests and answers in, the same with other names out. Names themselves are not accepted: a caller could try some.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from transom.core.pipeline import Pipeline
from transom.dialects.privacy import Privacy
from transom.edge.calls import stream_of
from transom.edge.requests import Acknowledge, Explain, Request, RequestError, Unmute
from transom.errors import TransomError


def inner(request: Request, pipeline: Pipeline, privacy: Privacy) -> Request:
    """With the names that the pipeline knows. Raises RequestError for a pseudonym of nothing."""
    if privacy.rule.key is None:
        return request
    if isinstance(request, Unmute | Acknowledge) and request.alert is not None:
        return msgspec.structs.replace(request, alert=_alert(request.alert, pipeline, privacy))
    if isinstance(request, Unmute | Explain) and request.stream and request.series:
        stream = stream_of(request.stream, pipeline)
        known = [name for name in stream.intake.names if name]
        found = next((name for name in known if privacy.name(name) == request.series), None)
        if found is None:
            some = ", ".join(sorted(map(privacy.name, known))[:5])
            raise RequestError("series", f"{request.stream} has no {request.series!r}", f"it has {some}; series have "
                               "pseudonyms here (transom pseudonym)")  # fmt: skip
        return msgspec.structs.replace(request, series=found)
    return request


def _alert(alert: str, pipeline: Pipeline, privacy: Privacy) -> str:
    for stream in pipeline.streams.values():
        for i, name in enumerate(stream.intake.names):
            for known, _ in stream.judge.standing.up(i) if name else ():
                if privacy.alert_id(known) == alert:
                    return known
    raise RequestError("alert", f"{alert!r} is not up", "an alert that has ended needs nothing more")


def outer(body: Mapping[str, Any], privacy: Privacy) -> dict[str, Any]:
    """What is answered, with the names that the caller knows."""
    told = dict(body)
    if "series" in told:
        told["series"] = privacy.name(told["series"])
    if "alert" in told:
        told["alert"] = privacy.alert_id(told["alert"])
    return told


def refused(error: TransomError, request: Request | None, privacy: Privacy) -> TransomError:
    """A refusal that quotes the request as it was looked up, as it was asked."""
    if privacy.rule.key is None or request is None:
        return error
    names = {
        str(getattr(request, key)): rename(str(getattr(request, key)))
        for key, rename in (("series", privacy.name), ("alert", privacy.alert_id)) if getattr(request, key, None)
    }  # fmt: skip
    parts = [error.place, error.problem, error.remedy]
    for name, told in names.items():
        parts = [part.replace(repr(name), repr(told)) for part in parts]
    return RequestError(*parts)
