"""Errors that name the place, the value and the remedy. Nothing here knows where they are shown."""


class TransomError(Exception):
    """Something a user can act on.

    place: file, key, topic or stream; problem: what is wrong, with the value; remedy: what to do.
    """

    def __init__(self, place: str, problem: str, remedy: str = "") -> None:
        super().__init__(place, problem, remedy)
        self.place, self.problem, self.remedy = place, problem, remedy

    def __str__(self) -> str:
        text = f"{self.place}: {self.problem}" if self.place else self.problem
        return f"{text}; {self.remedy}" if self.remedy else text


class SettingsError(TransomError):
    """A configuration that cannot be used; `problems` holds every one that was found."""

    def __init__(self, problems: list[TransomError]) -> None:
        self.problems = problems
        super().__init__("", "\n".join(str(p) for p in problems))


class ModelError(TransomError):
    """A model file that is damaged, foreign, unsafe or does not fit its stream."""


class RecordingError(TransomError):
    """A recording that cannot be read."""


class BrokerError(TransomError):
    """A broker that cannot be reached or refuses."""


class PatternError(TransomError):
    """A topic pattern that MQTT or the series rule does not allow."""
