"""What a person should know of the ways by which models arrive: settings in, sentences for `transom check` out."""

from collections.abc import Iterator

from transom.edge.arrival.https import shown
from transom.settings import Settings


def ways(settings: Settings) -> Iterator[str]:
    """Each way that is open."""
    models = settings.models
    if "mqtt" in models.updates:
        groups = f", and to the groups {', '.join(settings.agent.groups)}" if settings.agent.groups else ""
        yield f"by MQTT: transom push to {settings.agent.id}{groups}"
    if "folder" in models.updates:
        yield f"from {models.updates_folder}/STREAM/"
    for name, stream in settings.streams.items():
        if "https" in models.updates and stream.update_url is not None:
            yield f"for {name} from {shown(stream.update_url)}"


def warnings(settings: Settings) -> Iterator[str]:
    """Keys that do nothing as things are, and what is less safe than it could be."""
    models = settings.models
    if models.updates and models.allow_unsigned:
        yield "models.allow_unsigned: models that arrive by folder or https run whoever wrote them"
    if settings.agent.groups and "mqtt" not in models.updates:
        yield 'agent.groups: nothing is taken, because models.updates has no "mqtt"'
    if models.updates_folder is not None and "folder" not in models.updates:
        yield 'models.updates_folder: is not looked at, because models.updates has no "folder"'
    for name, stream in settings.streams.items():
        if stream.update_url is not None and "https" not in models.updates:
            yield f'streams.{name}.update_url: is not fetched, because models.updates has no "https"'
        elif stream.update_url is not None and stream.model_sha256 is not None:
            yield f"streams.{name}.update_url: is refused, because model_sha256 pins the model that runs"
