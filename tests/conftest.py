"""What holds for every test."""

from __future__ import annotations

from neurons.threads import sleep_while_waiting

sleep_while_waiting()  # before any test imports torch: tests share two cores with the servers they start
