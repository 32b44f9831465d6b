"""Configurations: presets, ranges, the TOML form, and each refusal with its message."""

import pickle
from dataclasses import Field, FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import ROOT
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
from ltc_compiler.isa.machine import PARAMETERS

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
RANGED = [f for f in fields(Config) if f.metadata.get("unit")]


def test_presets_are_the_class_methods_and_the_files() -> None:
    assert set(Config.presets()) >= {*BOARDS, *TESTS}
    assert Config.presets() == sorted(path.stem for path in (ROOT / "configs").glob("*.toml"))
    for name in (*BOARDS, *TESTS):
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
    ],
)
def test_a_bad_file_is_refused_with_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = _edited(tmp_path / "machine.toml", old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        Config.load(path)
    assert str(path) in caught.value.where


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('base = "v81_c6b32"', "base", r"no preset is called 'v81_c6b32'\n(.*\n)*.*did you mean v80_c6b32"),
        ('base = "other.toml"', "base", r"there is no 'other\.toml' beside this file"),
        ('base = "../other.toml"', "base", r"'\.\./other\.toml', not a file beside this one"),
        ("base = 6", "base", r"base is 6, not a string"),
        ('base = "v80_c6b32"\ncore = 2', "", r"unknown field core\n(.*\n)*.*write cores for core"),
        (
            'base = "v80_c6b32"\n[latency]\nmull = 2',
            "",
            r"unknown field latency\.mull\n(.*\n)*.*latency\.mul for",
        ),
        ('base = "v80_c6b32"\nzzz = 2', "", r"unknown field zzz\n(.*\n)*.*the fields are name, cores, "),
        ('base = "v80_c6b32"\ncores = "2"', "cores of 'mine'", r"cores is '2', not an integer from 1 to 16"),
        ('base = "v80_c6b32"\ncores = 2.0', "cores of 'mine'", r"cores is 2\.0, not an integer from 1 to 16"),
        ('base = "v80_c6b32"\nhost = 3', "", r"host is 3, not a table"),
        ('base = "v80_c6b32"\n[host]\nlatency_us = true', "host.latency_us", r"host\.latency_us is True"),
        (
            "cores = 2",
            "",
            r"missing fields block_size, clock_mhz, weight_blocks, tensor_rows, synapse_slots\n",
        ),
    ],
)
def test_a_file_with_a_base_is_refused_with_file_and_key(
    tmp_path: Path, text: str, key: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n{text}\n')
    with pytest.raises(ConfigError, match=message) as caught:
        Config.load(path)
    assert caught.value.where == (f"{key} in {path}" if key else str(path))


def test_a_file_gives_what_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text(
        'name = "first"\nbase = "v80_c6b32"\ncores = 2\n[latency]\nadd = 6\n'
    )
    (tmp_path / "second.toml").write_text('name = "second"\nbase = "first.toml"\n[latency]\nmul = 7\n')
    v80 = Config.v80_c6b32()
    first, second = (Config.load(tmp_path / f"{name}.toml") for name in ("first", "second"))
    assert first == replace(v80, name="first", cores=2, latency=Latencies(add=6))
    assert second == replace(first, name="second", latency=Latencies(add=6, mul=7))
    assert Config.from_bytes(b'name = "third"\nbase = "tiny_c1b8"') == replace(
        Config.tiny_c1b8(), name="third"
    )


def test_a_text_without_a_folder_takes_presets_alone_as_its_base() -> None:
    with pytest.raises(ConfigError, match=r"'first\.toml', and this text is in no folder"):
        Config.from_bytes(b'name = "second"\nbase = "first.toml"')


def test_a_name_is_not_taken_from_a_base(tmp_path: Path) -> None:
    (tmp_path / "nameless.toml").write_text('base = "v80_c6b32"\ncores = 2\n')
    with pytest.raises(ConfigError, match=r"missing field name\n"):
        Config.load(tmp_path / "nameless.toml")


def test_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.toml" for name in "abc"}
    for name, base in zip("abc", "bcb", strict=True):
        files[name].write_text(f'name = "{name}"\nbase = "{base}.toml"\n')
    with pytest.raises(ConfigError, match="base goes in a circle") as caught:
        Config.load(files["a"])
    assert caught.value.what.endswith(f"{files['b']} -> {files['c']} -> {files['b']}")
    assert caught.value.where == f"base in {files['c']}"


def test_a_wrong_value_of_a_base_names_the_file_that_gives_it(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "a"\nbase = "v80_c6b32"\ncores = 99\n')
    (tmp_path / "b.toml").write_text('name = "b"\nbase = "a.toml"\n')
    with pytest.raises(ConfigError, match="cores is 99") as caught:
        Config.load(tmp_path / "b.toml")
    assert caught.value.where == f"cores of 'b' in {tmp_path / 'a.toml'}"


def test_replace_gives_a_new_name() -> None:
    v80 = Config.v80_c6b32()
    mine = v80.replace(name="mine", cores=2, latency={"add": 6}, host=HostLink(latency_us=2))
    assert mine == replace(v80, name="mine", cores=2, latency=Latencies(add=6), host=HostLink(latency_us=2))
    assert mine.replace(name="again", latency={"mul": 9}).latency == Latencies(add=6, mul=9)
    with pytest.raises(TypeError, match="name"):
        v80.replace(cores=2)  # type: ignore[call-arg]
    for changes, message in (
        ({"core": 2}, r"unknown field core\n(.*\n)*.*cores for core"),
        ({"latency": {"ad": 2}}, r"unknown field latency\.ad\n(.*\n)*.*latency\.add for"),
        ({"latency": 3}, r"latency is 3, not a table"),
        ({"latency": HostLink()}, r"latency is HostLink.*, not a table"),
        ({"cores": 17}, r"cores is 17(.*\n)*.*replace of 'v80_c6b32'"),
    ):
        with pytest.raises(ConfigError, match=message):
            v80.replace(name="mine", **changes)


def test_equal_presets_say_so() -> None:
    found = {name: Config.preset(name).equal_presets() for name in Config.presets()}
    pairs = {(name, other) for name, others in found.items() for other in others}
    assert pairs >= {("nt400d11_c6b32", "ia_420f_c6b32"), ("ia_420f_c6b32", "nt400d11_c6b32")}
    for pair in pairs:  # the one that has the other as its base, or both
        comments = [(ROOT / "configs" / f"{name}.toml").read_text().partition("\nname =")[0] for name in pair]
        assert any(
            f"equal to {other} but for the name" in comment
            for comment, other in zip(comments, pair[::-1], strict=True)
        )
    assert "`nt400d11_c6b32` equals `ia_420f_c6b32`" in (ROOT / "docs" / "configuration.md").read_text()


def test_describe_has_a_line_for_each_field() -> None:
    config = Config.nt400d11_c6b32()
    *lines, last = config.describe().splitlines()
    for line, parameter in zip(lines, PARAMETERS, strict=True):
        name, value = line.split()[:2]
        assert name == parameter.name
        assert value == str(config.to_dict()[name])
        assert line.endswith(f"  {parameter.meaning}")
        assert f"  {parameter.unit}  " in line
    assert last == "equal, but for the name, to ia_420f_c6b32"
    assert len(Config.v80_c6b32().describe().splitlines()) == len(PARAMETERS)


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
