"""The feed stage."""
