"""The list of topics. A new one is a file beside this one that defines TOPIC, and a line here."""

from speciate.calibration import alarm, intervals, nulls, seeds, surface
from speciate.calibration.topic import Topic

TOPICS: tuple[Topic, ...] = (nulls.TOPIC, intervals.TOPIC, seeds.TOPIC, surface.TOPIC, alarm.TOPIC)
"""Every section of docs/calibration.md, in the order of the page."""
