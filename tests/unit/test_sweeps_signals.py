"""An interrupt arrives once, and never in the midst of an import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tune_sweeps.signals import interruptible


def test_the_first_signal_interrupts_and_the_second_is_ignored() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_in_the_midst_of_an_import_waits_for_its_end(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(1000): pass\nimported = True\n"
    )
    code = (
        "import time\n"
        "from tune_sweeps.signals import interruptible\n"
        "try:\n"
        "    with interruptible():\n"
        "        import slow_module\n"
        "        print('whole:', slow_module.imported, flush=True)\n"
        "        time.sleep(30)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=25, check=True)
    assert done.stdout.split("\n")[:2] == ["whole: True", "interrupted"]
