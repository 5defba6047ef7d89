"""Data sets of the Hugging Face hub: which ones validators draw from, how they lie on disk, how a pool is made of them.

    sources   the table of the validators' sources, and a description of any other data set
    pull      download, pinned by revision, every file checked against the hub's hash
    layout    what is in a downloaded directory: parquet shards, archives, plain files
    prepare   extraction into a pool with a manifest, resumable, bounded in memory
    near      near duplicates by perceptual hash, so that no split tears them apart

Nothing here touches the network but :func:`detectors.hub.pull.pull`.
"""

from detectors.hub.sources import SOURCES, Source, describe

__all__ = ["SOURCES", "Source", "describe"]
