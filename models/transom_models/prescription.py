"""A recipe's keys as the arguments of `transom train`. A table comes in; arguments and a manifest go out."""

import argparse
import difflib
from typing import Any

import msgspec

from transom.core.model import ANY, Channel, Manifest
from transom.errors import ModelError

# Flags of `transom train` that a recipe may set, with their types; `data` is the recipe's own table.
FLAGS: dict[str, type | tuple[type, ...]] = {
    "task": str, "family": str, "method": str, "channels": list, "label": str, "target": list, "cap": (int, float),
    "period": int, "min_steps": int, "length": int, "horizon": int, "hidden": int, "epochs": int, "seed": int,
    "step": (int, float), "aggregate": str, "stateful": bool,
}  # fmt: skip
OWN: dict[str, type] = {
    "name": str,  # of the model
    "version": str,
    "data": dict,  # see material.py
    "classes": list,  # names of the classes, in the order of the data's own
    "units": dict,  # by channel or target, for people
    "any": bool,  # the one channel may be any sensor
    "manifest": dict,  # fields that the data does not tell, such as step (ms), stride, learning
}
MANIFEST = ("step", "stride", "aggregate", "max_gap", "learning")


def check(recipe: dict[str, Any], place: str) -> None:
    """Raises ModelError for a key that is unknown, missing or of another type."""
    known: dict[str, Any] = FLAGS | OWN
    for key, value in recipe.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            raise ModelError(place, f"has an unknown key {key!r}", f"{meant}known: {', '.join(known)}")
        if not isinstance(value, known[key]) or isinstance(value, bool) != (known[key] is bool):
            raise ModelError(f"{place}, {key}", f"{value!r} is of the wrong type", "see the shipped recipes")
    for key in ("name", "version", "data", "task", "family"):
        if key not in recipe:
            raise ModelError(place, f"has no {key!r}", "see the shipped recipes")
    wanted = ("stream", "hours", "seed") if "scene" in recipe["data"] else ("folder",)
    for key in wanted:
        if key not in recipe["data"]:
            raise ModelError(f"{place}, data", f"has no {key!r}", "name a scene, stream, hours and seed, or a folder")
    strange = set(recipe.get("manifest", {})) - set(MANIFEST)
    if strange:
        raise ModelError(
            f"{place}, manifest", f"may not set {', '.join(sorted(strange))}", f"only {', '.join(MANIFEST)}"
        )


def apply(args: argparse.Namespace, recipe: dict[str, Any]) -> None:
    """Sets the arguments that the recipe names; a --seed or --name that was given stays."""
    for key in FLAGS:
        if key in recipe and not (key == "seed" and args.seed is not None):
            setattr(args, key, recipe[key])
    args.name = args.name or recipe["name"]


def named(manifest: Manifest, recipe: dict[str, Any]) -> Manifest:
    """The manifest with the recipe's version, classes, units and fields; without a date, so that the same recipe gives
    the same file. Raises ModelError when the classes are not as many as the data's."""
    units = recipe.get("units", {})
    classes = tuple(recipe.get("classes", manifest.classes))
    if len(classes) != len(manifest.classes):
        raise ModelError(
            f"recipe {recipe['name']!r}, classes", f"names {len(classes)}", f"the data has {len(manifest.classes)}"
        )
    channels = tuple(Channel(c.name, units.get(c.name, c.unit)) for c in manifest.channels)
    return msgspec.structs.replace(
        manifest, version=recipe["version"], classes=classes, created="",
        channels=(Channel(ANY),) if recipe.get("any") and len(channels) == 1 else channels,
        targets=tuple(Channel(c.name, units.get(c.name, c.unit)) for c in manifest.targets),
        **recipe.get("manifest", {}),
    )  # fmt: skip
