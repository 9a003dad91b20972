"""One stream in a phase: the model that runs, the one in its shadow, the time that has passed, and what should be done.

Figures, bounds and the time in; an action with its reason out, which conductor.py carries out.
"""

from dataclasses import dataclass
from typing import Literal

from transom.core.model import Model
from transom.core.stream import Stream, StreamSpec
from transom.edge.assembly import open_configured, open_update
from transom.edge.gate import Gate
from transom.edge.rollout.comparison import LEAST, Bounds
from transom.edge.rollout.ledger import Ledger
from transom.edge.rollout.record import Entry, File, Phase
from transom.edge.rollout.shadow import Shadow
from transom.runtimes.trust import Voucher
from transom.settings import ModelsSettings, Settings

BEHIND = 3  # times that a model may fall behind in the shadow
REFUSED = 3  # messages that a model on trial may leave unprocessed
PERSON = "a person has said so"

Action = Literal["", "give up", "switch", "go back", "accept"]


@dataclass
class Attempt:
    """phase: "none" where a person wants back what ran before; live: the model that runs; vouchers: of the shadow's
    model, once it is loaded; began: of the phase's time in this process, marked: of what is not written down yet, both
    monotonic; late_since: it should switch and the shadow is not where the live model is; refused: messages that could
    not be processed; wish: accept or rollback, of a person."""

    phase: Phase
    file: File | None
    live: Model
    shadow: Shadow
    vouchers: list[Voucher]
    began: float | None = None
    marked: float = 0.0
    not_before: float = 0.0
    late_since: float | None = None
    refused: int = 0
    wish: str = ""

    def start(self, now: float) -> None:
        if self.began is None:
            self.began = self.marked = now

    def spent(self, entry: Entry, now: float) -> float:
        """ms of the phase."""
        return entry.spent + (1000 * (now - self.marked) if self.began is not None else 0.0)

    def left(self, entry: Entry, models: ModelsSettings, now: float) -> float:
        """ms of the phase, at least."""
        limit = models.shadow if self.phase == "shadow" else models.trial
        return max(0.0, limit - self.spent(entry, now))

    def decide(self, entry: Entry, models: ModelsSettings, stream: Stream, now: float) -> tuple[Action, str]:
        """stream: that which runs."""
        reason = self._against(models, stream, now)
        if reason:
            return "give up" if self.phase == "shadow" else "go back", reason
        limit = models.shadow if self.phase == "shadow" else models.trial
        # A former model that cannot be loaded compares nothing: then the time alone decides.
        enough = self.shadow.comparison.windows >= LEAST or not limit or bool(self.shadow.problem)
        wanted = self.wish == "accept"
        if self.phase == "none" or not (wanted or (enough and self.left(entry, models, now) <= 0)):
            return "", ""
        return "switch" if self.phase == "shadow" else "accept", PERSON if wanted else ""

    def _against(self, models: ModelsSettings, stream: Stream, now: float) -> str:
        if self.wish:
            return PERSON if self.wish == "rollback" else ""
        if self.phase == "none" or self.began is None:
            return ""
        bounds = Bounds(models.max_alarm_ratio, models.max_error_ratio, models.max_latency_ratio, models.min_agreement)
        budget = (stream.judge.budget or 0.0) * 1000 * (now - self.began) * max(stream.intake.series_count, 1)
        reason = self.shadow.comparison.failure(bounds, budget)
        if not reason and self.phase == "shadow" and self.shadow.behind >= BEHIND:
            reason = f"fell behind what arrives {self.shadow.behind} times"
        if not reason and self.phase == "trial" and self.refused >= REFUSED:
            reason = f"{self.refused} messages could not be processed"
        return reason


def open_other(
    name: str, entry: Entry, ledger: Ledger, settings: Settings, vouchers: list[Voucher]
) -> tuple[StreamSpec, Model]:
    """The model that is to run beside the live one, through the gate; for the shadow's thread. Raises ModelError."""
    file = entry.candidate if entry.phase == "shadow" else entry.previous
    with Gate.of(settings.models) as gate:
        if file is None:
            spec, model, voucher = open_configured(name, settings, gate)
        else:
            spec, model, voucher = open_update(name, settings, gate, ledger.path(file))
    vouchers.append(voucher)
    return spec, model
