"""Where a redirect may lead: never to this machine or its network, however it is written."""

from __future__ import annotations

import pytest

from instruct_data.downloads import DownloadError, check_url


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://[64:ff9b::a9fe:a9fe]/x", id="NAT64 of 169.254.169.254"),
        pytest.param("https://[2002:7f00:1::]/x", id="6to4 of 127.0.0.1"),
        pytest.param("https://[::7f00:1]/x", id="IPv4-compatible 127.0.0.1"),
        pytest.param("https://[bad/x", id="no URL"),
    ],
)
def test_private_addresses_in_other_clothes_are_refused(url: str) -> None:
    with pytest.raises(DownloadError, match="redirected there"):
        check_url(url, redirected=True)


def test_a_public_address_is_allowed() -> None:
    check_url("https://[2606:4700::1111]/x", redirected=True)
