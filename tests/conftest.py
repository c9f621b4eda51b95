"""What all tests share."""

import gc


def pytest_collection_finish():
    """Takes what imports have made out of the garbage collector's rounds, which else take most of a second each."""
    gc.collect()
    gc.freeze()
