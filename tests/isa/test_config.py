"""Configurations: presets, ranges, the TOML form, and each refusal with its message."""

import pickle
from dataclasses import Field, FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltc_compiler import (
    AllocationError,
    Config,
    ConfigError,
    HostLink,
    Latencies,
    LtcError,
    Unsupported,
    UnsupportedError,
)

BOARDS = {  # cores, block size, MHz, weight blocks a core, tensor rows, synapse slots
    "ia_420f_c6b32": (6, 32, 320.0, 512, 8192, 4096),
    "ia_840f_c3b64": (3, 64, 320.0, 512, 4096, 2048),
    "ia_840f_c2b64d": (2, 64, 320.0, 1024, 4096, 2048),
    "nt400d11_c6b32": (6, 32, 320.0, 512, 8192, 4096),
    "v80_c6b32": (6, 32, 300.0, 4096, 8192, 4096),
    "v80ll_c6b32": (6, 32, 330.0, 4096, 8192, 4096),
    "artena_c8b32": (8, 32, 320.0, 1024, 8192, 4096),
}
TESTS = {"tiny_c1b8": (1, 8), "tiny_c2b8": (2, 8), "small_c2b16": (2, 16)}
RANGED = [f for f in fields(Config) if "low" in f.metadata]


def test_presets_are_the_class_methods_and_the_files() -> None:
    assert Config.presets() == sorted([*BOARDS, *TESTS])
    for name in Config.presets():
        config = getattr(Config, name)()
        assert config == Config.preset(name)
        assert config.name == name


@pytest.mark.parametrize("name", BOARDS)
def test_board_presets_have_the_boards_geometry(name: str) -> None:
    c = Config.preset(name)
    geometry = (c.cores, c.block_size, c.clock_mhz, c.weight_blocks, c.tensor_rows, c.synapse_slots)
    assert geometry == BOARDS[name]
    assert (c.latency, c.host) == (Latencies(), HostLink())


@pytest.mark.parametrize("name", TESTS)
def test_test_presets(name: str) -> None:
    c = Config.preset(name)
    assert (c.cores, c.block_size) == TESTS[name]


def test_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no preset is called 'v81'.*v80_c6b32"):
        Config.preset("v81")


def test_a_config_is_frozen_and_hashable() -> None:
    config = Config.tiny_c1b8()
    with pytest.raises(FrozenInstanceError):
        config.cores = 2  # type: ignore[misc]
    assert len({config, Config.tiny_c1b8()}) == 1


@pytest.mark.parametrize("f", RANGED, ids=lambda f: f.name)
def test_each_field_takes_its_range_and_no_more(f: Field[Any]) -> None:
    config, low, high = Config.tiny_c1b8(), f.metadata["low"], f.metadata["high"]
    assert getattr(replace(config, **{f.name: low}), f.name) == low
    assert getattr(replace(config, **{f.name: high}), f.name) == high
    refused: list[Any] = [low - 1, high + 1, "8", None, True, float("nan"), [4]]
    for bad in refused:
        with pytest.raises(ConfigError, match=rf"{f.name} is .* from {low} to {high}") as caught:
            replace(config, **{f.name: bad})
        assert caught.value.where == f"{f.name} of 'tiny_c1b8'"


@pytest.mark.parametrize("f", fields(Latencies), ids=lambda f: f.name)
def test_each_latency_is_1_to_1000_cycles(f: Field[Any]) -> None:
    for good in (1, 1000):
        assert getattr(Latencies(**{f.name: good}), f.name) == good
    refused: list[Any] = [0, 1001, 2.5]
    for bad in refused:
        with pytest.raises(ConfigError, match=rf"latency\.{f.name} is {bad}"):
            Latencies(**{f.name: bad})


@pytest.mark.parametrize("size", [5, 12, 127])
def test_block_size_is_a_power_of_two(size: int) -> None:
    with pytest.raises(ConfigError, match="not a power of two"):
        replace(Config.tiny_c1b8(), block_size=size)


@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 65, 'q"', "é", 7, None])
def test_bad_names(name: object) -> None:
    with pytest.raises(ConfigError, match="name is"):
        replace(Config.tiny_c1b8(), name=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [1, "true", None])
def test_features_are_booleans(bad: object) -> None:
    with pytest.raises(ConfigError, match=r"synapse_unit is .*\n.*\n.*use true or false"):
        replace(Config.tiny_c1b8(), synapse_unit=bad)  # type: ignore[arg-type]


def test_latency_must_be_a_table_of_latencies() -> None:
    with pytest.raises(ConfigError, match="not a Latencies"):
        replace(Config.tiny_c1b8(), latency={"add": 1})  # type: ignore[arg-type]


def test_host_must_be_a_host_link() -> None:
    with pytest.raises(ConfigError, match="not a HostLink"):
        replace(Config.tiny_c1b8(), host=Latencies())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"host\.bytes_per_us is 0, not a number from"):
        HostLink(bytes_per_us=0)


def test_numpy_numbers_become_plain() -> None:
    config = replace(Config.tiny_c1b8(), cores=np.int64(3), clock_mhz=np.float32(250))  # type: ignore[arg-type]
    assert type(config.cores) is int
    assert type(config.clock_mhz) is float
    assert Config.from_bytes(config.to_bytes()) == config


def test_derived_sizes() -> None:
    config = Config.v80_c6b32()
    assert config.weight_elements == 6 * 4096 * 32 * 32
    assert [config.block_rows(n) for n in (0, 1, 32, 33, 480)] == [0, 1, 1, 2, 15]


@given(st.integers(1, 16), st.sampled_from([4, 8, 16, 32, 64, 128]))
def test_ip_core_of_any_geometry(cores: int, block_size: int) -> None:
    config = Config.ip_core(cores, block_size)
    assert (config.cores, config.block_size) == (cores, block_size)
    assert config.tensor_rows * block_size == 8192 * 32


@pytest.mark.parametrize("size", [0, -8, 2, 256, 24])
def test_ip_core_refuses_nonsense(size: int) -> None:
    with pytest.raises(ConfigError, match="block_size is"):
        Config.ip_core(2, size)
    with pytest.raises(ConfigError, match="cores is 17"):
        Config.ip_core(17, 32)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    values: dict[str, object] = {
        f.name: draw(st.integers(f.metadata["low"], f.metadata["high"]))
        for f in RANGED
        if f.name != "block_size"
    }
    values["clock_mhz"] = draw(st.floats(1, 2000))
    values["block_size"] = draw(st.sampled_from([4, 8, 16, 32, 64, 128]))
    values["name"] = draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True))
    values |= {name: draw(st.booleans()) for name in ("fp32_matmul", "fp8_weights", "synapse_unit")}
    latency = Latencies(**{f.name: draw(st.integers(1, 1000)) for f in fields(Latencies)})
    host = HostLink(latency_us=draw(st.floats(0, 1e6)), bytes_per_us=draw(st.floats(1e-3, 1e9)))
    return Config(latency=latency, host=host, **values)  # type: ignore[arg-type]


@given(configs())
def test_every_form_reads_back(config: Config) -> None:
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_bytes(config.to_bytes()) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_save_and_load(tmp_path: Path) -> None:
    for name in Config.presets():
        config = Config.preset(name)
        config.save(tmp_path / "machine.toml")
        assert Config.load(tmp_path / "machine.toml") == config


def _edited(path: Path, old: str, new: str) -> Path:
    text = Config.tiny_c1b8().to_bytes().decode()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores = 1\n", "", r"missing field cores\n"),
        ("add = 4\n", "", r"missing field latency\.add\n"),
        ("cores = 1", "cores = 1\ncore = 2\nlanes = 3", r"unknown fields core, lanes\n"),
        ("add = 4", "add = 4\nadder = 6", r"unknown field latency\.adder\n"),
        (
            "cores = 1",
            "cores = 99",
            r"cores is 99, not an integer from 1 to 16\n  where: cores of 'tiny_c1b8' in ",
        ),
        (
            "add = 4",
            "add = 0",
            r"latency\.add is 0, not an integer from 1 to 1000\n  where: latency\.add in ",
        ),
        ("cores = 1", "cores = ", r"not a TOML text: "),
        ("[latency]", "[[latency]]", r"latency is .*, not a table"),
        ("[host]", "[[host]]", r"host is .*, not a table"),
        ("latency_us = 0.7\n", "", r"missing field host\.latency_us\n"),
    ],
)
def test_a_bad_file_is_refused_with_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = _edited(tmp_path / "machine.toml", old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        Config.load(path)
    assert str(path) in caught.value.where


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)cannot be read: .*absent\.toml"):
        Config.load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"(?s)not a TOML text: .*binary\.toml"):
        Config.load(tmp_path / "binary.toml")


def test_the_error_family_says_what_where_and_remedy() -> None:
    error = ConfigError("cores is 0", where="cores", remedy="use 1 to 16")
    assert str(error) == "cores is 0\n  where: cores\n  remedy: use 1 to 16"
    assert isinstance(error, LtcError)
    assert isinstance(error, ValueError)
    assert str(LtcError("only what")) == "only what"


def test_allocation_and_unsupported_errors_keep_their_parts() -> None:
    full = AllocationError("weight blocks of core 2", needed=9, available=4, remedy="use more cores")
    assert str(full) == "weight blocks of core 2: 9 needed, 4 available\n  remedy: use more cores"
    both = UnsupportedError(
        [
            Unsupported("fft", "net.py:7", "no spectrum", ""),
            Unsupported("flip", "net.py:9", "not causal", "drop it"),
        ]
    )
    assert str(both).splitlines() == [
        "2 operations cannot be lowered",
        "  fft: no spectrum",
        "    where: net.py:7",
        "  flip: not causal",
        "    where: net.py:9",
        "    remedy: drop it",
    ]
    with pytest.raises(ValueError, match="at least one"):
        UnsupportedError([])


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("a", where="b", remedy="c"),
        AllocationError("rows", needed=2, available=1),
        UnsupportedError([Unsupported("fft", "net.py:7", "no spectrum", "")]),
    ],
)
def test_errors_pass_between_processes(error: LtcError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
