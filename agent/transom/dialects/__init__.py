"""Events to publications, one file a dialect."""
