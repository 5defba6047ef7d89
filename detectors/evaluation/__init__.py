"""Measuring detectors behind the validators' pipeline; torch is imported only where a detector is loaded."""
