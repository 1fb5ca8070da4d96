"""Hypervisors on other hosts: how a URI is opened, and what to do where libvirt cannot reach one.

A worker has nobody to ask. So ssh is told to fail where it would ask for a password, and credentials come from files.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import libvirt

_HERE = "does libvirtd, or that driver's own daemon, run here, and may this user open its socket?"
_REMEDIES = {
    "": _HERE + "; for another host say +tls, +ssh or +tcp",
    "unix": _HERE,
    "tcp": "does libvirtd listen there for TCP (listen_tcp = 1 and 'libvirtd --listen', or virtproxyd-tcp.socket), on this port?"
    " it is neither encrypted nor authenticated by itself: use it in a network of trust only",
    "tls": "does libvirtd listen there for TLS (virtproxyd-tls.socket), and are CA certificate, clientcert.pem and clientkey.pem here,"
    " in /etc/pki or the directory that ?pkipath= names?",
    "ssh": "can this user log in there by ssh without being asked: is the host's key known, and a key allowed (?keyfile=PATH)?"
    " a worker is never asked for a password",
}
_AUTH = "credentials are wanted: put them into the file that ?authfile= or LIBVIRT_AUTH_FILE names, or set up a way to log in without"
_AUTH_CODES = (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE)
_DIRECT = ("esx", "gsx", "vpx", "hyperv")
"""Schemes whose drivers speak to the host by themselves, without a libvirtd there."""


def transport(uri: str) -> str:
    """Return how a URI reaches its hypervisor: `tcp`, `tls`, `ssh`, …; '' for one that names none and no host."""
    parts = urlsplit(uri)
    scheme, _, named = parts.scheme.partition("+")
    if named or scheme in _DIRECT:
        return named
    return "tls" if parts.hostname else ""  # libvirt's own default


def opened_as(uri: str) -> str:
    """Return the URI that libvirt is given: ssh must fail, and not ask on a terminal that may be there."""
    if transport(uri) != "ssh" or any(name == "no_tty" for name, _ in parse_qsl(urlsplit(uri).query)):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}no_tty=1"


def remedy(uri: str, code: int) -> str:
    """Return what to do about a connection that failed with libvirt's error `code`; '' where libvirt's own words must do."""
    if code in _AUTH_CODES:
        return _AUTH
    if code == libvirt.VIR_ERR_CONFIG_UNSUPPORTED:
        return "this libvirt cannot do that; another build of it may"
    if code in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_NO_CONNECT):
        return _REMEDIES.get(transport(uri), "") if urlsplit(uri).scheme not in _DIRECT else ""
    return ""
