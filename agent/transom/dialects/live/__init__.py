"""What the live page is told: the latest points of each series, the list of series, the alerts."""
