"""The pure core: columns in, columns out; no clock, no socket, no disk, no torch."""
