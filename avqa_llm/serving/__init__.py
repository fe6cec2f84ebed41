"""Serving: a gateway that speaks OpenAI's protocol, and what answers behind it."""
