from pathlib import Path

import pytest

from bottleneck.memory import available_memory, peak_memory, resident_memory

MIB = 2**20
MEMINFO = "MemTotal:       24684096 kB\nMemFree:          200000 kB\nMemAvailable:   10240000 kB\nCached: 11000000 kB\n"
OF_MACHINE = 10240000 * 1024


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group_v2(folder: str, *, limit: str, usage: int = 0, files: int = 0) -> dict[str, str]:
    return {
        f"sys/fs/cgroup/{folder}memory.max": f"{limit}\n",
        f"sys/fs/cgroup/{folder}memory.current": f"{usage}\n",
        f"sys/fs/cgroup/{folder}memory.stat": f"anon {usage - files}\ninactive_file {files}\nactive_file 0\n",
    }


def group_v1(folder: str, *, limit: int, usage: int, files: int) -> dict[str, str]:
    return {
        f"sys/fs/cgroup/memory/{folder}memory.limit_in_bytes": f"{limit}\n",
        f"sys/fs/cgroup/memory/{folder}memory.usage_in_bytes": f"{usage}\n",
        f"sys/fs/cgroup/memory/{folder}memory.stat": f"inactive_file 7\ntotal_inactive_file {files}\n",
    }


def test_here_it_is_a_plausible_number_of_bytes():
    assert 2**26 < available_memory() < 2**50


def test_remembered_files_count_as_available(tmp_path):
    """Free memory alone is small on any machine that has read many images."""
    assert available_memory(write(tmp_path, {"proc/meminfo": MEMINFO})) == OF_MACHINE


def test_container_that_may_take_less_than_the_machine_has_is_heard(tmp_path):
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n"})
    write(tmp_path, group_v2("", limit=str(512 * MIB), usage=300 * MIB, files=100 * MIB))

    assert available_memory(tmp_path) == 312 * MIB


@pytest.mark.parametrize("outer, inner, left", [("max", 700, 400), (500, "max", 100), (900, 700, 400), (500, 900, 100)])
def test_tightest_limit_of_all_groups_that_a_process_is_in_counts(tmp_path, outer, inner, left):
    def bytes_of(limit: object) -> str:
        return limit if isinstance(limit, str) else str(limit * MIB)

    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/jobs/mine\n"})
    write(tmp_path, group_v2("jobs/", limit=bytes_of(outer), usage=400 * MIB))
    write(tmp_path, group_v2("jobs/mine/", limit=bytes_of(inner), usage=300 * MIB))

    assert available_memory(tmp_path) == left * MIB


@pytest.mark.parametrize("folder", ["", "docker/1f/"], ids=["as seen inside", "as seen outside"])
def test_first_version_of_control_groups_is_read_too(tmp_path, folder):
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/1f\n0::/\n"})
    write(tmp_path, group_v1(folder, limit=600 * MIB, usage=500 * MIB, files=200 * MIB))

    assert available_memory(tmp_path) == 300 * MIB


def test_group_without_a_limit_or_without_files_changes_nothing(tmp_path):
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "4:memory:/a\n0::/gone\n"})
    write(tmp_path, group_v1("a/", limit=9223372036854771712, usage=500 * MIB, files=0))

    assert available_memory(tmp_path) == OF_MACHINE


def test_full_group_leaves_nothing(tmp_path):
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", **group_v2("", limit="10", usage=20)})

    assert available_memory(tmp_path) == 0


def test_system_that_says_nothing_is_taken_to_have_half_of_its_memory_left(tmp_path):
    assert 2**26 < available_memory(tmp_path) < 2**50


def test_what_the_process_has_and_ever_had_is_what_the_system_says(tmp_path):
    write(tmp_path, {"proc/self/status": "Name:\tpython\nVmHWM:\t  4000 kB\nVmRSS:\t  3000 kB\n"})

    assert (resident_memory(tmp_path), peak_memory(tmp_path)) == (3000 * 1024, 4000 * 1024)
    assert resident_memory(tmp_path / "elsewhere") is None
