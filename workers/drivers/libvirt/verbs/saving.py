"""Saving a domain's memory beside its definition, from where `start` goes on."""

from __future__ import annotations

from workers.drivers.libvirt.verbs.signature import Run, on_domain

SAVING: dict[str, Run] = {
    "managed-save": on_domain(lambda domain: domain.managedSave(0)),
    "managed-save-remove": on_domain(lambda domain: domain.managedSaveRemove(0)),
}
