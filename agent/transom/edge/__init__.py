"""Everything that touches the outside: broker, disk, signals, clock."""
