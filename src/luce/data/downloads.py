"""Addresses as sources: downloaded where that is asked for, once, and kept. Light."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

from luce.data.opening import reading
from luce.errors import ArgumentError

__all__ = ["download", "is_address", "kept"]


def is_address(source: Any) -> TypeGuard[str]:
    """Return whether a source is the address of a file, not its path."""
    return isinstance(source, str) and re.match(r"(?i)https?://", source) is not None


def kept(address: str) -> Path:
    """Return where the file of an address is kept once it is downloaded."""
    import pooch

    name = re.sub(r"[^\w.-]", "_", Path(unquote(urlsplit(address).path)).name) or "download"
    digest = hashlib.sha256(address.encode(errors="replace")).hexdigest()[:16]
    return Path(pooch.os_cache("luce")) / "downloads" / digest / name


def download(address: str) -> Path:
    """Download the file of an address, unless it is kept already; return where it is.

    Raises
    ------
    luce.errors.ArgumentError
        If it is not a secure address, nor one of this machine.
    luce.errors.DataError
        If there is no such file, or the network is down.
    """
    here = urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
    if not address.lower().startswith("https://") and not here:
        raise ArgumentError(f"download is for addresses that begin with https://, got {address}.")
    path = kept(address)
    if not path.exists():
        import pooch

        pooch.get_logger().setLevel("WARNING")
        with reading(address, hint="Look at the address, and whether there is a network."):
            downloader = pooch.HTTPDownloader(timeout=30)
            pooch.retrieve(address, None, path.name, path.parent, downloader=downloader)
    return path
