"""When two addresses are the same page."""

from __future__ import annotations

import urllib.parse

# parameters that say where a visitor came from, not what the page shows
_TRACKING = ("utm_", "fbclid", "gclid", "dclid", "msclkid", "mc_cid", "mc_eid", "igshid", "yclid")


def url_key(url: str) -> str:
    """An address without what leads to the same page: scheme, `www.`, default port, fragment, tracking parameters, the
    order of the others and a slash at the end. Empty for an empty address.

    The path keeps its case. What cannot be parsed stays as it is.
    """
    url = url.strip()
    try:
        parts = urllib.parse.urlsplit(url if "//" in url else f"//{url}")
        port = f":{parts.port}" if parts.port not in (None, 80, 443) else ""
    except ValueError:
        return url
    if not parts.hostname:
        return url
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    kept = sorted((key, value) for key, value in query if not key.lower().startswith(_TRACKING))
    parameters = "?" + urllib.parse.urlencode(kept) if kept else ""
    return parts.hostname.removeprefix("www.") + port + parts.path.rstrip("/") + parameters


def url_host(url: str) -> str:
    """The host of an address without `www.`, in lower case; empty when it has none."""
    key = url_key(url)
    return key.partition("/")[0].partition("?")[0].lower() if key else ""
