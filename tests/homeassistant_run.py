"""Home Assistant's MQTT integration, running: `python tests/homeassistant_run.py PORT`, by a Python that has it.

Prints a JSON line with all states and devices at each change; ends with its standard input. What Home Assistant needs
for other things than MQTT (web pages, Bluetooth, cameras) may be missing.
"""

import asyncio
import importlib.abc
import importlib.machinery
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from unittest.mock import MagicMock

NEEDLESS = {
    "av", "bleak", "bleak_retry_connector", "bluetooth_adapters", "bluetooth_data_tools", "dbus_fast", "go2rtc_client",
    "habluetooth", "haffmpeg", "hass_frontend", "hass_nabucasa", "mutagen", "numpy", "pymicro_vad", "pyspeex_noise",
    "serial", "turbojpeg", "usb", "aiousbwatcher",
}  # fmt: skip


class Needless(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes up modules that are imported on the way and never used; comes after what is installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        needless = name.partition(".")[0] in NEEDLESS
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if needless else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        made = MagicMock(name=spec.name)
        made.__path__, made.__spec__, made.__name__ = [], spec, spec.name
        return made

    def exec_module(self, module: ModuleType) -> None:
        pass


sys.meta_path.append(Needless())

from homeassistant import config_entries, core, loader  # noqa: E402  # with what is missing made up
from homeassistant.helpers import (  # noqa: E402
    area_registry,
    category_registry,
    condition,
    device_registry,
    entity,
    entity_registry,
    floor_registry,
    frame,
    issue_registry,
    label_registry,
    restore_state,
    template,
    translation,
    trigger,
)  # fmt: skip


async def begun(folder: str) -> core.HomeAssistant:
    """What its start does before any integration is set up."""
    (Path(folder) / "configuration.yaml").touch()
    hass = core.HomeAssistant(folder)
    hass.config.skip_pip = True
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    loader.async_setup(hass)
    for part in (entity, frame, template, translation):
        part.async_setup(hass)
    for registry in (
        area_registry, category_registry, device_registry, entity_registry, floor_registry, issue_registry,
        label_registry, restore_state,
    ):  # fmt: skip
        loading = registry.async_load(hass)
        if loading is not None:
            await loading
    await hass.config_entries.async_initialize()
    for part in (condition, trigger):
        await part.async_setup(hass)
    hass.config.components |= {"http", "file_upload", "network", "hassio"}
    hass.set_state(core.CoreState.running)
    return hass


async def main(port: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        hass = await begun(folder)

        def tell(_event: object = None) -> None:
            states = {s.entity_id: [s.state, dict(s.attributes)] for s in hass.states.async_all()}
            names = [device.name for device in device_registry.async_get(hass).devices.values()]
            print(json.dumps({"states": states, "devices": names}, default=str), flush=True)

        for event in ("state_changed", "device_registry_updated"):
            hass.bus.async_listen(event, core.callback(tell))
        entry = config_entries.ConfigEntry(
            domain="mqtt", title="broker", data={"broker": "127.0.0.1", "port": port}, options={"discovery": True},
            source="user", version=1, minor_version=2, unique_id=None, discovery_keys=MappingProxyType({}),
            subentries_data=None,
        )  # fmt: skip
        await hass.config_entries.async_add(entry)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await hass.async_stop(force=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main(int(sys.argv[1])))
