"""The Hugging Face hub: data sets that validators draw from, how a pool is made of them; and weights of others.

    sources   the table of the validators' sources, and a description of any other data set
    pinned    what downloads have in common: commit hash, the hub's hashes, the record of what is in a folder
    pull      download of a data set, pinned by revision, every file checked against the hub's hash
    weights   download of weights into the store, the same way
    layout    what is in a downloaded directory: parquet shards, archives, plain files
    prepare   extraction into a pool with a manifest, resumable, bounded in memory
    near      near duplicates by perceptual hash, so that no split tears them apart

Nothing here touches the network but :func:`detectors.hub.pull.pull` and :func:`detectors.hub.weights.pull_weights`.
"""

from detectors.hub.sources import SOURCES, Source, describe

__all__ = ["SOURCES", "Source", "describe"]
