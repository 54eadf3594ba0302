"""Issues: pure functions that classify, derive, merge, waive, summarise and judge. They know neither HTTP nor SQL."""
