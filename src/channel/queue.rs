//! The queue of a channel: one cursor, leases, returned ranges, capacity. Pure state, no I/O.
