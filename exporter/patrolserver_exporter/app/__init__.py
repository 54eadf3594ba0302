"""The service: wired together, started, watched, reloaded and stopped."""
