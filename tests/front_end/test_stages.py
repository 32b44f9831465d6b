"""Every stage of a compilation logs its seconds at INFO, and nothing is printed unless somebody asks for it."""

import logging
import re

import pytest
import torch

from ltc_compiler import Config
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import LSTM

STAGES = ["record", "convert", "stream", "transform", "schedule", "encode", "verify", "vm"]


def compile_and_load() -> None:
    module, _ = prepare_shape(LSTM(4, 8, batch_first=True).eval(), torch.randn(1, 3, 4))
    to_nnir(module).streaming_transform(1)[0].to_program(Config.preset("small_c2b16")).to_vm()


def test_stages_log_what_they_took(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ltc_compiler"):
        compile_and_load()
    assert [r.name for r in caplog.records] == [f"ltc_compiler.{name}" for name in STAGES]
    assert all(
        re.fullmatch(r"\w+( on \w+)?: \d+\.\d{3} s, \d+\.\d{3} s of CPU", r.message) for r in caplog.records
    )


def test_each_schedule_is_named_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "ltc_compiler.schedule"):
        compile_and_load()
    tried = [r.message for r in caplog.records if r.levelno == logging.DEBUG]
    assert len(tried) > 1
    assert all(re.fullmatch(r"Spread\(.*\): \d+ cycles", message) for message in tried)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    compile_and_load()
    assert capfd.readouterr() == ("", "")
