"""Peak memory of one batch beyond the model and its inputs, each measured in a process of its own.

pytest bench/scoring/test_memory_bench.py --benchmark-only
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

PROBE = """
import json, resource, sys
import timed_models as models, torch, saal_fast
engine, batch = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
model, pool = models.resnet18(batch)
with torch.no_grad():
    model(pool[:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model(pool) if engine == "forward" else saal_fast.score(model, pool, engine=engine, batch_size=batch)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def peak_mb(engine: str, batch: int) -> float:
    """MB by which one batch raises the process's peak."""
    bench = pathlib.Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, engine, str(batch)], capture_output=True, text=True, check=True, cwd=bench
    )
    return json.loads(done.stdout) / 1024


@pytest.mark.parametrize("batch", [16, 64])
def test_peak_memory(benchmark, batch, capsys):
    benchmark.group = f"peak memory, ResNet-18, batch {batch}"
    engines = ("forward", "ghost", "vmap") if batch == 16 else ("forward", "ghost")  # vmap would take 12 GB at 64
    peaks = benchmark.pedantic(lambda: {e: peak_mb(e, batch) for e in engines}, rounds=1)
    benchmark.extra_info.update(peaks)
    with capsys.disabled():
        print(
            f"\npeak memory of a batch of {batch}, MB a sample: "
            + ", ".join(f"{e} {p / batch:.1f}" for e, p in peaks.items())
        )
    if "vmap" in peaks:
        assert peaks["ghost"] < peaks["vmap"]
