"""The gate's answer as people and CI systems read it."""
