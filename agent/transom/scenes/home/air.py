"""The air of a room: carbon dioxide, fine dust, temperature and humidity from who is there and what is open.

A well-mixed room: dC/dt = source / volume - exchange * (C - outside), as in ASHRAE Handbook, Fundamentals, chapter on
ventilation; solved exactly for each minute, in which nothing changes.
"""

import numpy as np
from numpy.typing import NDArray

from transom.scenes.home.people import DAY, Life

CHANNELS = ("co2", "pm25", "temperature", "humidity")
UNITS = {"co2": "ppm", "pm25": "µg/m³", "temperature": "°C", "humidity": "%"}
OUTSIDE = 420.0  # ppm
BREATH = 0.018  # m³ of carbon dioxide that a person at rest gives off an hour
NOISE = (6.0, 0.4, 0.04, 0.3)  # standard deviation of the sensors


def room(life: Life, random: np.random.Generator) -> NDArray[np.float64]:
    """float64 [n, 4], a row a minute, as a sensor in the living room measures it."""
    n = len(life.living)
    volume, leak = random.uniform(45, 90), random.uniform(0.25, 0.7)  # m³; changes of air an hour, all shut
    airing = random.uniform(4, 9)  # with a window open
    exchange = (leak + airing * life.window + 2 * life.door) / 60  # a minute
    source = 1e6 * BREATH / 60 * life.living * (1 + 0.1 * random.standard_normal(n)) / volume
    out_dust = 8 + 4 * _wander(n, random)
    source_dust = 2.5 * life.cooking * random.uniform(0.6, 1.6)
    minutes = np.arange(n)
    out_warm = 4 + 4 * np.sin(2 * np.pi * (minutes - 540) / DAY) + 2 * _wander(n, random)
    heat = 0.012 * life.living + 0.05 * life.cooking
    found = np.empty((n, 4))
    co2, dust, warm, damp = OUTSIDE + 150, 8.0, 20.5, 45.0
    for i in range(n):
        shut = np.exp(-exchange[i])
        co2 = OUTSIDE + source[i] / exchange[i] + (co2 - OUTSIDE - source[i] / exchange[i]) * shut
        lost = exchange[i] + 0.2 / 60  # dust also settles
        dust = (0.6 * out_dust[i] * exchange[i] + source_dust[i]) / lost * (1 - np.exp(-lost)) + dust * np.exp(-lost)
        warm += 0.03 * (21.0 - warm) + heat[i] - 0.12 * exchange[i] * (warm - out_warm[i])
        damp += 0.25 * life.cooking[i] + 0.02 * life.living[i] - exchange[i] * (damp - 38) - 0.002 * (damp - 44)
        found[i] = co2, dust, warm, damp
    return np.maximum(found + np.array(NOISE) * random.standard_normal((n, 4)), 0.0)


def _wander(n: int, random: np.random.Generator) -> NDArray[np.float64]:
    """A slow random walk about 0 of standard deviation 1: means of hourly noise, drawn through by straight lines."""
    hours = random.standard_normal(n // 60 + 14)
    smooth = np.convolve(hours, np.ones(12) / np.sqrt(12), "valid")
    return np.asarray(np.interp(np.arange(n) / 60, np.arange(len(smooth)), smooth))
