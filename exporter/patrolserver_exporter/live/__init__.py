"""From committed changes to what is scraped."""
