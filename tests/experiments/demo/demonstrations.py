"""A demonstration on digits that takes a second or two."""

from saal_fast.experiments.demo import Settings


def small_settings(out, **choices):
    small = {"data": "digits", "labels": 20, "pool": 60, "k": 5, "epochs": 2, "reference_samples": 8, "out": out}
    return Settings(**{**small, **choices})
