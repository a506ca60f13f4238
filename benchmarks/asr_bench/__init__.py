"""Benchmarks of the model and of the whole server: `asr bench`."""
