import pytest

from saal_fast.models import memory
from saal_fast.models.available import available_memory

MIB = 2**20


def system(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return available_memory(root)


MEMINFO = """MemTotal:       1000000 kB
MemFree:           1000 kB
MemAvailable:    512000 kB
Cached:          700000 kB
"""


def test_what_the_page_cache_would_give_back_counts(tmp_path):
    assert system(tmp_path, proc__meminfo=MEMINFO) == 512000 * 1024


@pytest.mark.parametrize("path", ["/", "/a/b", "/elsewhere/../b"])
def test_cgroup_v2(tmp_path, path):
    files = {
        "proc__meminfo": MEMINFO,
        "proc__self__cgroup": f"0::{path}\n",
        "sys__fs__cgroup__memory.max": f"{300 * MIB}\n",
        "sys__fs__cgroup__memory.current": f"{280 * MIB}\n",
        "sys__fs__cgroup__memory.stat": f"anon {100 * MIB}\nfile {180 * MIB}\ninactive_file {150 * MIB}\n",
    }
    assert system(tmp_path, **files) == 170 * MIB


def test_the_tightest_of_nested_groups_counts(tmp_path):
    files = {
        "proc__self__cgroup": "0::/a/b\n",
        "sys__fs__cgroup__a__memory.max": str(40 * MIB),
        "sys__fs__cgroup__a__memory.current": str(30 * MIB),
        "sys__fs__cgroup__a__b__memory.max": "max\n",
        "sys__fs__cgroup__a__b__memory.current": str(5 * MIB),
    }
    assert system(tmp_path, **files) == 10 * MIB


def test_cgroup_v1(tmp_path):
    files = {
        "proc__meminfo": MEMINFO,
        "proc__self__cgroup": "9:name=systemd:/\n4:cpuset,memory:/job:7\n0::/\n",
        "sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712\n",  # none
        "sys__fs__cgroup__memory__memory.usage_in_bytes": f"{900 * MIB}\n",
        "sys__fs__cgroup__memory__job:7__memory.limit_in_bytes": f"{200 * MIB}\n",
        "sys__fs__cgroup__memory__job:7__memory.usage_in_bytes": f"{199 * MIB}\n",
        "sys__fs__cgroup__memory__job:7__memory.stat": f"cache 3\ntotal_inactive_file {64 * MIB}\n",
    }
    assert system(tmp_path, **files) == 65 * MIB


def test_a_group_above_its_limit_leaves_nothing(tmp_path):
    files = {
        "proc__self__cgroup": "0::/\n",
        "sys__fs__cgroup__memory.max": "1000",
        "sys__fs__cgroup__memory.current": "2000",
    }
    assert system(tmp_path, **files) == 0


@pytest.mark.parametrize(
    "text", ["", "\n", "garbage", "MemAvailable:", "MemAvailable: many kB\n", "0:\n::\n", "MemAvailable: -3 kB"]
)
def test_files_that_say_nothing(tmp_path, text):
    names = ("proc__meminfo", "proc__self__cgroup", "sys__fs__cgroup__memory.max", "sys__fs__cgroup__memory.current")
    assert system(tmp_path, **dict.fromkeys(names, text)) is None


def test_another_system(tmp_path):
    assert available_memory(tmp_path) is None


def test_a_budget_is_a_quarter_of_what_is_available_and_a_mebibyte_at_least(monkeypatch):
    device = memory.torch.device("cpu")
    for available, budget in ((100 * MIB, 25 * MIB), (0, MIB), (2**50, memory.CPU_TARGET)):
        monkeypatch.setattr(memory, "available_memory", lambda available=available: available)
        assert memory._budget(device) == budget
