"""Tables that are read as streams: from files larger than memory to the block store."""
