"""Simulated places with sensors and faults, for `transom demo` and for training. A name comes in, its `Scene` goes out.

Pure, as the core is: seconds in, messages out. Each scene is a module that is imported when it is asked for.
"""

import importlib
from typing import cast

from transom.scenes.scene import Fault, Kind, Outlook, Scene, Simulation, Trace

NAMES = {
    "plant": "transom.scenes.plant",
    "home": "transom.scenes.home",
    "city": "transom.scenes.city",
    "vehicle": "transom.scenes.vehicle",
}


def scene(name: str) -> Scene:
    """The scene of that name; KeyError for one that is not in NAMES."""
    return cast("Scene", importlib.import_module(NAMES[name]).SCENE)


__all__ = ["NAMES", "Fault", "Kind", "Outlook", "Scene", "Simulation", "Trace", "scene"]
