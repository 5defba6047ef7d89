"""The operator's console: a small web page of the miner itself, for the one person who runs it."""
