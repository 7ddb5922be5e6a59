"""What all workers share: loop, signals, leases, clock, logging, health."""
