"""Transom: watches MQTT sensors with small neural models and says what it saw."""

__version__ = "0.1.0"
