"""`python -m saal_fast` prints what this installation is made of."""

from saal_fast._config import show_config

print(show_config())
