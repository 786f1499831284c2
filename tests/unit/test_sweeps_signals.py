"""One orderly interrupt: raised until cleaning up begins, ignored during it, never lost in a library."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tune_sweeps.cluster.session import ray_cluster
from tune_sweeps.console.signals import cleaned_up, cleaning_up, interruptible, rearm


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_interrupts_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_an_interrupt_that_a_library_swallowed_comes_again() -> None:
    with interruptible():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)


def test_no_interrupt_is_raised_within_an_import_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsum(range(1000))\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with interruptible():
        module = __import__("slow_module")
        assert module.whole
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)


def test_cleaning_up_is_not_cut_short_and_what_comes_after_it_is() -> None:
    with interruptible():
        cleaning_up()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        cleaned_up()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_taken_back_from_a_library() -> None:
    with interruptible():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        rearm()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_third_signal_ends_the_process_whatever_it_does() -> None:
    code = (
        "import os, signal, time\n"
        "from tune_sweeps.console.signals import *\n"
        "with interruptible():\n"
        "    cleaning_up()\n"
        "    for _ in range(3): os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 130


def test_a_termination_that_ray_turns_into_an_exit_while_it_starts_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    def ended(**options: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(ray, "init", ended)
    try:
        with pytest.raises(KeyboardInterrupt), ray_cluster(None, 1):
            pass
    finally:
        cleaned_up()
