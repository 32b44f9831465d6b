"""The examples and the benchmark, run as a user would, each in a process and a folder of its own.

What they print is read back: not that they end well is tested, but what they claim.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from folders import BENCHMARKS, EXAMPLES

CONFIGS = ("v80_c6b32", "ia_840f_c3b64")


def run(folder: Path, script: Path, *options: str) -> str:
    """The standard output of a script run in a folder."""
    done = subprocess.run(
        [sys.executable, str(script), *options], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def row(text: str, name: str) -> list[str]:
    """The cells of the one table row of that name, after the name."""
    rows = [line for line in text.splitlines() if line.startswith("|") and line.split("|")[1].strip() == name]
    assert len(rows) == 1, f"{len(rows)} rows are called {name!r} in\n{text}"
    return [cell.strip() for cell in rows[0].split("|")[2:-1]]


def check_picture(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert path.stat().st_size > 10_000  # an empty figure has fewer bytes


def check_bit_for_bit(text: str, expected: int) -> None:
    match = re.search(r"simulator == reference, bit for bit, on (\d+) of (\d+) ", text)
    assert match is not None
    assert match.groups() == (str(expected), str(expected))


def check_times(text: str) -> None:
    """Cycles and µs on the accelerators agree by the clock; the simulator is faster than PyTorch on this CPU."""
    for config in CONFIGS:
        mhz, spaced, spaced_us, contiguous, contiguous_us = map(float, row(text, config))
        assert 0 < spaced <= contiguous
        assert (spaced_us, contiguous_us) == pytest.approx((spaced / mhz, contiguous / mhz), abs=0.006)
    eager, script, simulator = (
        [float(cell) for cell in row(text, name)]
        for name in ("PyTorch, eager", "PyTorch, TorchScript", "simulator, bit-accurate")
    )
    assert simulator[0] < script[0] < eager[0]


@pytest.fixture(scope="module")
def sine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("sine")
    return folder, run(folder, EXAMPLES / "sine_ltc.py", "--quick")


@pytest.fixture(scope="module")
def glucose(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("glucose")
    return folder, run(folder, EXAMPLES / "glucose_ncp.py", "--short", "--output", "pictures")


def accuracy(text: str) -> str:
    """The sine's first table; row names return in its last one."""
    return text[text.index("Accuracy on") : text.index("One inference on the accelerator")]


def test_sine_errors_against_pytorch(sine: tuple[Path, str]) -> None:
    table = accuracy(sine[1])
    assert 1e-5 < float(row(table, "simulator, bit-accurate")[0]) < 0.1  # bf16 shows, and no more than that
    assert float(row(table, "the same, fp32 operands")[0]) < 1e-5
    assert float(row(table, "simulator, plain fp32")[0]) < 1e-5


def test_sine_learns_the_function(sine: tuple[Path, str]) -> None:
    table = accuracy(sine[1])
    for name in ("PyTorch", "simulator, bit-accurate"):
        assert (
            float(row(table, name)[2]) < 0.3
        )  # the function's own rms is 0.79; the quick form trains briefly


def test_sine_times(sine: tuple[Path, str]) -> None:
    text = sine[1]
    check_bit_for_bit(text, 21)
    check_times(text[text.index("One inference on the accelerator") :])
    exact, precise = (float(row(text, name)[1]) for name in (CONFIGS[0], f"{CONFIGS[0]}, fp32 operands"))
    assert exact < precise  # fp32 operands cost cycles


def test_sine_picture(sine: tuple[Path, str]) -> None:
    check_picture(sine[0] / "demo_output" / "sine_ltc.png")


def forecasts(text: str) -> str:
    """The table of forecast errors."""
    return text[text.index("Forecasts of the held-back days") : text.index("One reading on the accelerator")]


def test_glucose_beats_persistence(glucose: tuple[Path, str]) -> None:
    table = forecasts(glucose[1])
    persistence = [float(cell) for cell in row(table, "persistence")[:2]]
    assert persistence == [28.1, 18.8]  # a property of the data alone
    for name in ("PyTorch", "simulator, bit-accurate"):
        rmse, mae = (float(cell) for cell in row(table, name)[:2])
        assert rmse < persistence[0] - 2
        assert mae < persistence[1] - 1


def test_glucose_simulator_agrees_with_pytorch(glucose: tuple[Path, str]) -> None:
    table = forecasts(glucose[1])
    pytorch, exact, plain = (
        row(table, name) for name in ("PyTorch", "simulator, bit-accurate", "simulator, plain fp32")
    )
    for simulated in (exact, plain):  # to the printed digit, or its neighbour where rounding falls between
        assert [float(c) for c in simulated[:2]] == pytest.approx([float(c) for c in pytorch[:2]], abs=0.11)
    assert 1e-4 < float(exact[2]) < 2.0  # a single forecast: bf16 shows, by less than the sensor's noise
    assert float(plain[2]) < 1e-3
    moved = re.search(r"RMSE, bit-accurate less PyTorch: ([+-][0-9.]+) mg/dL", table)
    assert moved is not None
    assert abs(float(moved[1])) < 0.1
    check_bit_for_bit(glucose[1], 50)


def test_glucose_reads_the_real_gaps(glucose: tuple[Path, str]) -> None:
    assert glucose[1].startswith("52278 readings of 201 days, up to 27.9 h apart")


def test_glucose_times_and_picture(glucose: tuple[Path, str]) -> None:
    folder, text = glucose
    check_times(text[text.index("One reading on the accelerator") :])
    check_picture(folder / "pictures" / "glucose_ncp.png")


@pytest.mark.parametrize("script", ["sine_ltc.py", "glucose_ncp.py"])
def test_an_unknown_config_is_refused_before_training(tmp_path: Path, script: str) -> None:
    command = [sys.executable, str(EXAMPLES / script), "--config", "v80"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no preset is called 'v80'" in done.stderr
    assert "v80_c6b32" in done.stderr  # the remedy names those there are
    assert "training" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["sine_ltc.py", "glucose_ncp.py"])
def test_a_missing_package_gives_a_sentence(tmp_path: Path, script: str) -> None:
    code = f"import runpy, sys; sys.modules['matplotlib'] = None; sys.path.insert(0, {str(EXAMPLES)!r});"
    code += f" runpy.run_path({str(EXAMPLES / script)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "matplotlib is not installed" in done.stderr
    assert "ltc-compiler[torch,demo]" in done.stderr
    assert "Traceback" not in done.stderr


def test_benchmark(tmp_path: Path) -> None:
    script = BENCHMARKS / "step_latency.py"
    text = run(
        tmp_path,
        script,
        "--workloads",
        "W2",
        "W6b4",
        "--rounds",
        "2",
        "--peers",
        "none",
        "--json",
        "out.json",
    )
    workloads = json.loads((tmp_path / "out.json").read_text())["workloads"]
    assert list(workloads) == ["W2", "W6b4"]
    for name, result in workloads.items():
        times = {key: (t["median"], t["p99"], t["calls"]) for key, t in result["us"].items()}
        assert set(times) == {"PyTorch eager", "run", "run_into"}
        assert all(0 < median <= p99 and calls >= 6 for median, p99, calls in times.values())
        assert times["run"][0] < times["PyTorch eager"][0]
        assert result["error"]["plain fp32"] < 1e-4 < result["error"]["run"] < 0.05
        cells = row(text, f"{name} {result['title']}")
        assert cells[:2] == [f"{times[name][0]:.2f}" for name in ("run", "run_into")]
        if result["limit"]:  # this CPU has the instructions for the bare kernels
            assert result["limit"]["kernel"] > 0 < result["limit"]["call"]
            assert cells[-1] == f"{times['run_into'][0] / result['limit']['sum']:.2f}"


def test_the_benchmark_of_batches(tmp_path: Path) -> None:
    script = BENCHMARKS / "batch_scaling.py"
    text = run(tmp_path, script, "--workloads", "W4", "--streams", "2", "--rounds", "1", "--json", "out.json")
    result = json.loads((tmp_path / "out.json").read_text())["workloads"]["W4"]
    assert result["steps"] > 1
    assert all(us > 0 for us in result["us"].values())
    assert row(text, "W4 ncps CfC(64)")[0] == str(result["steps"])
