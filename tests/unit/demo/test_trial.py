"""Laws of the trial: whether QEMU can start a domain is found out, not assumed."""

from __future__ import annotations

import pytest

from demo import stage, trial


def test_what_a_trial_says_is_the_reason_for_the_test_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rights are missing and QEMU does start nothing, the show goes on without it."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/qemu")
    monkeypatch.setattr("pathlib.Path.glob", lambda *_: ["libvirt_driver_qemu.so"])
    monkeypatch.setattr(trial, "needed", lambda: True)
    monkeypatch.setattr(trial, "refusal", lambda: "QEMU starts no domain here")
    assert "QEMU starts no domain here" in stage.choose().reason


def test_a_driver_that_cannot_be_opened_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence."""
    monkeypatch.setattr(trial, "EMBED", "nonsense:///nowhere")
    refusal = trial.refusal()
    assert refusal is not None
    assert "starts no domain here" in refusal
