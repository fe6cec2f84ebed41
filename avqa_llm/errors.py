"""The errors that a user can cause. Each message names the value, the limit and the way out."""

from __future__ import annotations


class AVQAError(Exception):
    """Base of every error whose message is meant for the person at the keyboard.

    The command line prints the message alone and exits with status 2; a library
    caller catches this one class.
    """


class MediaError(AVQAError):
    """A media file that cannot be read, or that exceeds a limit."""


class RecipeError(AVQAError):
    """A recipe with an unknown key, a wrong type or a value that cannot work."""


class CheckpointError(AVQAError):
    """A model directory that is incomplete, foreign or from another version."""


class AnnotationError(AVQAError):
    """An annotation or scene file with a malformed row; names the row and the field."""


class AcousticsError(AVQAError):
    """A quantity or side that is not measured, or a window that lies outside of the clip."""


class SpeechError(AVQAError):
    """A speech model that is missing or does not load, or a window outside of the clip."""


class AgentError(AVQAError):
    """A tool call with a time, name or quantity that cannot be, or an agent that cannot start."""
