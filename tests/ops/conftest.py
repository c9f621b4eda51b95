"""Tests in `interpreted/` run with TRITON_INTERPRET=1 set before triton is imported: see `test_triton_interpreter.py`."""

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
