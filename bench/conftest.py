"""Benchmarks: timings in one process, correctness before timing, ratios instead of seconds.

    pytest bench --benchmark-only

Each round of a contestant runs right after a plain forward pass, and it is to that one that it is compared.
"""

from __future__ import annotations

import statistics
import subprocess
from collections import defaultdict

import pytest
import torch


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["torch"] = torch.__version__
    machine_info["torch_threads"] = torch.get_num_threads()
    machine_info["cpu_capability"] = torch.backends.cpu.get_cpu_capability()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    """Prints each group's medians as ratios to its plain forward pass and to the reference."""
    session = getattr(config, "_benchmarksession", None)
    groups = defaultdict(dict)
    for bench in session.benchmarks if session else []:
        if not bench.has_error and bench.stats.data:
            groups[bench.group][(bench.params or {}).get("contestant", bench.name)] = bench
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    for group, benches in groups.items():
        if "ours" in benches:
            ours = statistics.median(benches["ours"].stats.data)
            terminalreporter.write_sep("-", f"{group} (torch {torch.__version__}, {commit})")
            for name, b in benches.items():
                median = statistics.median(b.stats.data)
                terminalreporter.write_line(
                    f"{name:24}{1e3 * median:12.3f} ms{median / ours:12.1f} x ours, {len(b.stats.data)} seeds"
                )
        if not all(
            "forward" in b.extra_info for b in benches.values()
        ):  # others are compared in pytest-benchmark's own table
            continue
        times = {name: statistics.median(b.stats.data) / b.extra_info["samples"] for name, b in benches.items()}
        ratios = {name: paired(b.stats.data, b.extra_info["forward"]) for name, b in benches.items()}
        terminalreporter.write_sep("-", f"{group} ({torch.get_num_threads()} threads, torch {torch.__version__}, {commit})")
        terminalreporter.write_line(f"{'':24}{'ms a sample':>12}{'x forward':>12}{'reference / it':>16}")
        for name, ratio in sorted(ratios.items(), key=lambda item: item[1]):
            beside = f"{ratios['reference'] / ratio:16.1f}" if "reference" in ratios else ""
            terminalreporter.write_line(f"{name:24}{1e3 * times[name]:12.3f}{ratio:12.2f}{beside}")


def paired(times, forward):
    """The median of the rounds' ratios, each to the forward pass that ran right before it."""
    return statistics.median(time / beside for time, beside in zip(times, forward, strict=True))


@pytest.fixture(autouse=True)
def _quiet():
    """No benchmark leaves gradients on, or another's random numbers."""
    torch.manual_seed(0)
    with torch.no_grad():
        yield
