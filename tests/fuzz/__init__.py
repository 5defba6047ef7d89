"""Hostile bytes for every parser of the house: targets, mutations, and the watch over them; see ``make fuzz``."""
