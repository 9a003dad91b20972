"""What Home Assistant calls a quantity, by the unit of its channel: text in, an entity's options out.

Only device classes that may be a measurement, and of each only units that Home Assistant knows it by
(https://developers.home-assistant.io/docs/core/entity/sensor/#available-device-classes).
"""

from collections.abc import Mapping

_UNITS: Mapping[str, tuple[str, ...]] = {
    "temperature": ("°C", "°F", "K"),
    "pressure": ("Pa", "hPa", "kPa", "bar", "cbar", "mbar", "mmHg", "inHg", "psi"),
    "voltage": ("V", "mV"),
    "current": ("A", "mA"),
    "power": ("W", "kW", "MW", "mW"),
    "apparent_power": ("VA",),
    "frequency": ("Hz", "kHz", "MHz", "GHz"),
    "sound_pressure": ("dB", "dBA"),
    "illuminance": ("lx",),
    "irradiance": ("W/m²",),
    "speed": ("m/s", "mm/s", "km/h", "mph", "ft/s", "in/s"),
    "distance": ("mm", "cm", "m", "km"),
    "weight": ("g", "kg", "mg", "lb", "oz"),
    "volume_flow_rate": ("m³/h", "L/min", "ft³/min"),
    "duration": ("ms", "s", "min", "h", "d"),
    "signal_strength": ("dBm",),
}
_CLASSES = {unit: name for name, units in _UNITS.items() for unit in units}
_BY_NAME = {  # units that say too little alone: (a part of the channel's name, unit)
    ("humid", "%"): "humidity",
    ("moist", "%"): "moisture",
    ("batt", "%"): "battery",
    ("co2", "ppm"): "carbon_dioxide",
    ("power_factor", "%"): "power_factor",
}
_OTHERWISE = {"C": "°C", "degC": "°C", "F": "°F", "degF": "°F", "l/min": "L/min", "m3/h": "m³/h", "W/m2": "W/m²"}
_OTHERWISE |= {"dB(A)": "dBA", "lux": "lx"}


def described(channel: str, unit: str) -> dict[str, str]:
    """`unit_of_measurement` and, where the unit (or it and the channel's name) tells, `device_class`; {} for a channel
    without a unit."""
    if not unit:
        return {}
    known = _OTHERWISE.get(unit, unit)
    name = channel.lower()
    kind = _CLASSES.get(known) or next((k for (part, u), k in _BY_NAME.items() if u == known and part in name), None)
    return {"unit_of_measurement": known} | ({"device_class": kind} if kind else {})
