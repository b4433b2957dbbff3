"""Servo and pin tasks for Task Engine, on gpiozero: put `taskengine_hardware` in TASKS.

They run in lane `hardware`, whose one worker owns every pin.
"""

from __future__ import annotations

from taskengine_hardware.pins import read_led, set_led, set_servo

__all__ = ["read_led", "set_led", "set_servo"]
