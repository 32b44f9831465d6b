"""The pictures of docs/, taken anew: pages of reports in a headless browser, and what matplotlib draws.

python docs/make_pictures.py            needs matplotlib, and chromium (or the browser that CHROMIUM names)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import torch
from ncps.torch import LTC
from ncps.wirings import AutoNCP
from torch import Tensor, nn

import ltc_torch.fx
from ltc_compiler import Config
from ltc_compiler.compare import Comparison
from ltc_compiler.program import Program

PICTURES = Path(__file__).parent / "pictures"


class Readout(nn.Module):
    """Two LSTM layers of 128 and a linear readout."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(128, 128, 2, batch_first=True)
        self.readout = nn.Linear(128, 32)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(x)
        return self.readout(hidden)


def program() -> Program:
    """One step of the model on six cores."""
    torch.manual_seed(0)
    traced, _ = ltc_torch.fx.prepare_shape(Readout().eval(), torch.rand(1, 4, 128))
    nnir, _ = ltc_torch.fx.nnir.to_nnir(traced).streaming_transform(1)
    return nnir.to_program(Config.v80_c6b32())


def screenshot(page: Path, picture: Path, size: str) -> None:
    """A page as PNG. Leaves with a word if there is no browser, or it fails."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no chromium: install it, or name a browser by CHROMIUM")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}"]
    done = subprocess.run(
        [browser, *options, f"--screenshot={picture}", page.as_uri()],
        capture_output=True,
        check=False,
        timeout=120,
    )
    if done.returncode or not picture.exists():
        sys.exit(f"{browser} took no picture of {page}:\n{done.stderr.decode()}")


def sequence() -> Program:
    """The whole sequence of 60 steps in one inference."""
    torch.manual_seed(0)
    traced, _ = ltc_torch.fx.prepare_shape(Readout().eval(), torch.rand(1, 60, 128))
    return ltc_torch.fx.nnir.to_nnir(traced).to_program(Config.v80_c6b32())


def comparison() -> Comparison:
    """Where the precision of a liquid network goes over twenty steps."""
    torch.manual_seed(0)
    model = LTC(8, AutoNCP(24, 4, seed=1)).eval()
    inputs = torch.rand(1, 20, 8)
    traced, _ = ltc_torch.fx.prepare_shape(model, inputs)
    return ltc_torch.fx.nnir.to_nnir(traced).compare(Config.v80_c6b32(), inputs)


def main() -> None:
    """Take all pictures."""
    matplotlib.use("Agg")
    PICTURES.mkdir(exist_ok=True)
    compiled = program()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        compiled.report().to_html(page)
        screenshot(page, PICTURES / "report.png", "1400,2400")
        sequence().report().to_html(page)
        screenshot(page, PICTURES / "sequence.png", "1400,860")
    for name, axes in (("timeline", compiled.timeline()), ("compare", comparison().plot())):
        axes.figure.savefig(PICTURES / f"{name}.png", dpi=90)


if __name__ == "__main__":
    main()
