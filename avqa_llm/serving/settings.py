"""What the gateway allows: every limit with its unit, in one place."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from avqa_llm.media import MediaLimits

MIB = 2**20
GIB = 2**30


def _strangers() -> MediaLimits:
    return MediaLimits(
        max_bytes=256 * MIB,
        max_seconds=600.0,
        max_pixels=4096 * 2304,
        max_frames=2048,
        max_picture_bytes=GIB,
        max_sound_bytes=GIB,
        timeout_s=60.0,
    )


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """How a gateway treats those who ask.

    Raises:
        ValueError: a limit that cannot work; names it.
    """

    folder: Path
    """Uploads, and media of requests under way. Several gateways may share it."""
    host: str = "127.0.0.1"
    """The address that the server is bound to. On the loopback, requests must name it in their
    Host header, or a page in a browser could reach it through a name of its own."""
    host_names: tuple[str, ...] = ()
    """Further names that a Host header may carry; bound elsewhere than on the loopback, empty
    allows any."""
    cors_origins: tuple[str, ...] = ()
    """Origins (`https://app.example.org`) whose pages may ask from a browser; none by default."""

    # -- who may ask -----------------------------------------------------------------------
    keys_file: Path | None = None
    """Lines of `SHA-256 [name]` of API keys; None: nobody needs a key."""
    admin_keys_file: Path | None = None
    """The same for keys that may add and remove adapters; None: nobody may."""
    adapters_folder: Path | None = None
    """Adapters are added from folders below this one only; None: not at all."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts (`media.example.org`, or with a port `media.example.org:8443`) that media may be
    fetched from; none by default: no URL is ever fetched."""

    # -- how much --------------------------------------------------------------------------
    media: MediaLimits = field(default_factory=_strangers)
    """Of every media file; its `max_bytes` is also the most that an upload or a link may have."""
    max_body_bytes: int = 48 * MIB
    """Of a JSON body: what data URLs may weigh together, a third more than their files."""
    max_bodies_bytes: int = 512 * MIB
    """Of all JSON bodies that are being read or answered at once: what they may take of memory."""
    max_text_chars: int = 16_000
    """Characters of all texts of a conversation."""
    max_messages: int = 200
    """Of a conversation."""
    max_media: int = 8
    """Media files of a conversation."""
    max_answer_tokens: int = 512
    """Of an open answer."""
    max_files: int = 100
    """Uploads that one user may keep."""
    max_files_bytes: int = 2 * GIB
    """Bytes of all uploads of one user."""
    max_store_bytes: int = 20 * GIB
    """Bytes of all uploads of all users."""
    file_ttl_s: float = 24 * 3600.0
    """After so long an upload is deleted; its sender may ask for less."""

    # -- how often, how many, how long -----------------------------------------------------
    rate_per_s: float = 20.0
    """Requests a second of one key (without keys: of one address) in the long run; 0: any."""
    rate_burst: int = 200
    """Requests that may come at once after a pause."""
    max_running: int = 64
    """Answers under way."""
    max_waiting: int = 256
    """Requests that wait for one of them to end; more are answered with 429."""
    user_share: float = 0.5
    """Part of these places, running and waiting, that one user may take (0..1). Without keys on
    the loopback all are one user, who may take all."""
    max_uploads_running: int = 16
    """Uploads being received."""
    max_probes: int = 2
    """Media files being looked at in this process at once."""
    max_connections: int = 1024
    """Open connections; more are answered with 503."""
    request_timeout_s: float = 120.0
    """From a request's arrival to the end of its answer."""
    upload_timeout_s: float = 600.0
    """From an upload's arrival to its end."""
    link_timeout_s: float = 30.0
    """Of fetching a link, all redirects together."""
    link_redirects: int = 3

    def __post_init__(self) -> None:
        for name in (
            *("max_body_bytes", "max_bodies_bytes", "max_text_chars", "max_messages", "max_media"),
            *("max_answer_tokens", "max_files", "max_files_bytes", "max_store_bytes"),
            *("file_ttl_s", "rate_burst", "max_running", "max_uploads_running", "max_probes"),
            *("max_connections", "request_timeout_s", "upload_timeout_s", "link_timeout_s"),
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("rate_per_s", "max_waiting", "link_redirects"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")

        if not 0 < self.user_share <= 1:
            raise ValueError(f"user_share is {self.user_share}; it must be above 0, at most 1")

    @property
    def share(self) -> float:
        """Part of all places that one user may take."""
        return 1.0 if self.is_loopback and self.keys_file is None else self.user_share

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
